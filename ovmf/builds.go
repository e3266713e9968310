package ovmf

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// BaseDigest is a SHA-256 over a whole image but GRUB: firmware has the same before and after Bundle,
// whatever was bundled. It covers the bytes outside the packed volume, and of the packed section's
// volumes their headers, sizes, and every file with its place, but not GRUB's file, the file system drivers that Bundle takes
// out, nor erased pad files.
func BaseDigest(data []byte) ([32]byte, error) {
	t, err := Unpack(data)
	if err != nil {
		return [32]byte{}, err
	}
	return t.baseDigest(), nil
}

func (t *Tree) baseDigest() (sum [32]byte) {
	h := sha256.New()
	piece := func(kind byte, at int, parts ...[]byte) {
		var head [17]byte
		size := 0
		for _, p := range parts {
			size += len(p)
		}
		head[0] = kind
		binary.LittleEndian.PutUint64(head[1:], uint64(at))
		binary.LittleEndian.PutUint64(head[9:], uint64(size))
		h.Write(head[:])
		for _, p := range parts {
			h.Write(p)
		}
	}
	volume := func(v *Volume, skip func(*File) bool) {
		piece('v', v.Size(), v.head, v.raw)
		at := len(v.head)
		for _, f := range v.Files {
			if !skip(f) {
				head := f.header()
				piece('f', at, head[:], f.Body)
			}
			at += align(f.size(), 8)
		}
	}
	for _, p := range t.parts {
		if p.volume == nil {
			piece('r', 0, p.raw)
		} else {
			volume(p.volume, func(f *File) bool { return f == t.main })
		}
	}
	for i, s := range t.outer { // of the main file
		if i != t.packed {
			piece('s', int(s.kind), s.data)
		}
	}
	for i, v := range t.innerFV {
		if v == nil {
			piece('s', int(t.inner[i].kind), t.inner[i].data)
			continue
		}
		volume(v, func(f *File) bool {
			return f.GUID == grubGUID || slices.Contains(fileSystems, f.GUID) || f.GUID == padGUID && f.Type == filePad && isErased(f.Body)
		})
	}
	h.Sum(sum[:0])
	return sum
}

// knownBuilds names builds by their BaseDigest, computed from the packages themselves
// (dpkg -x PACKAGE.deb; sealboot ovmf lint --json FILE).
var knownBuilds = map[string]string{
	"5a93e169001d7253d40b65a1fa162eddfd8d219bbecdd33ae9d1a5eb9fe6aeb7": "Debian ovmf-amdsev 2026.08+ds-2, OVMF.amdsev.fd",

	"eed422137d93983c37840f8b0d6afeb8aee2826a6f3d54730ac1753035ab58b4": "Debian ovmf 2022.11-6+deb12u2, OVMF_CODE.fd",
	"1b5a91a83d31e09dd8a017d09078864fc8c18eb297c457a66108d0104405cea1": "Debian ovmf 2022.11-6+deb12u2, OVMF_CODE.secboot.fd",
	"5dc7e68f4f1c4654f951db1d4b7393fe49a0d4cdd93d57d7ef2b0e6ebc59fabf": "Debian ovmf 2022.11-6+deb12u2, OVMF_CODE_4M.fd",
	"700ccb629d4c06be3cac9f764d4d370ecb092427dda9ded319e94465cca94e64": "Debian ovmf 2022.11-6+deb12u2, OVMF_CODE_4M.secboot.fd",
	"e895a2077c0241f5b4ff63b22b03c986e3c303581450144f0cf554d53c3f0e36": "Debian ovmf 2022.11-6+deb12u2, OVMF.fd",

	"6bced620d8d6962de86838333a81b1a048274aaaaaa1f2b9ef9a7be73240bdb1": "Debian ovmf 2025.02-8+deb13u1, OVMF_CODE_4M.fd",
	"3fe08ce2fe3bdf30f12d831d6a743c2fe059e77254eb1ac27e31763d29288d34": "Debian ovmf 2025.02-8+deb13u1, OVMF_CODE_4M.secboot.fd",
	"6341130cdbb07f80134d78b045e4dabf775b234dbb7a5c827ac4c06dfb672fb8": "Debian ovmf 2025.02-8+deb13u1, OVMF_CODE_4M.secboot.strictnx.fd",
	"47725c3fe0ce8c1ff6277a954f2a17b3426c242b20ddd888d6ce65543a3a75f9": "Debian ovmf 2025.02-8+deb13u1, OVMF.fd",

	"ba4978dffe42c083903f10a594a6548efc252368c120e8c4fb32d0b05d2574cc": "Debian ovmf-generic 2026.08+ds-2, OVMF_CODE_4M.fd",
	"7e14d76d4d76ec7ba18195f758caef965aa76802007c333f4133ad925de22f03": "Debian ovmf-generic 2026.08+ds-2, OVMF_CODE_4M.secboot.fd",
	"2813afac9d1a353640cd658b80067486c9949d6e9fe6719c3d33649be32d9573": "Debian ovmf-generic 2026.08+ds-2, OVMF_CODE_4M.secboot.strictnx.fd",
	"12be04e2f6343032af44e488b52fc2e2f9cd66bda007414250fa21aa076630dc": "Debian ovmf-generic 2026.08+ds-2, OVMF.fd",
	"76673ba1805d8f83eefc33d1aea9e3cd9dd8c2773477d97814080811664738d5": "Debian ovmf-legacy 2026.08+ds-2, OVMF.legacy.fd",
	"f9d1eaeba5587ec7afdebf77092df0f7630a88016ca9317c10226de8c5d2c496": "Debian ovmf-inteltdx 2026.08+ds-2, OVMF.inteltdx.ms.fd",
}
