package ovmf

import (
	"crypto/sha256"
	"encoding/binary"
)

// BaseDigest is a SHA-256 over a whole image but GRUB: firmware has the same before and after Bundle,
// whatever was bundled. It covers the bytes outside the packed volume, and of the packed section's
// volumes their headers, sizes, and every file with its place, but not GRUB's file nor erased pad files.
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
			return f.GUID == grubGUID || f.GUID == padGUID && f.Type == filePad && isErased(f.Body)
		})
	}
	h.Sum(sum[:0])
	return sum
}

// knownBuilds names builds by their BaseDigest, computed from the packages themselves
// (dpkg -x PACKAGE.deb; sealboot ovmf lint --json FILE).
var knownBuilds = map[string]string{
	"103e422a85cde6e1080d11af35824703d0c21edd9dd4455969e2245ca1c80b07": "Debian ovmf-amdsev 2026.08+ds-2, OVMF.amdsev.fd",

	"7fa2af5224a0e3e094b1cd2f1bf5e2a6e62a257412dd95ab58c7b3abaa126d3c": "Debian ovmf 2022.11-6+deb12u2, OVMF_CODE.fd",
	"1585b397be52534dcc3b6545b8884aee6b2d823806cb41ddfb75ced5a07bbd76": "Debian ovmf 2022.11-6+deb12u2, OVMF_CODE.secboot.fd",
	"3b81d8b860e88b9efc820160717452ebf256b4f53d1ce450a682ba4a02e3a240": "Debian ovmf 2022.11-6+deb12u2, OVMF_CODE_4M.fd",
	"8aec9649c42382e1e6fd6b3a4ef4dab1ab8ac938f48089042d44aa4a0ac3db57": "Debian ovmf 2022.11-6+deb12u2, OVMF_CODE_4M.secboot.fd",
	"63c34073763e5c1c7933d686a690a82436bdcc9d2eeea25f475a9182dba1e79d": "Debian ovmf 2022.11-6+deb12u2, OVMF.fd",

	"da659c04d6fbdc1f055b0f4afb695a2aa7028984a123472184deda1d1134b163": "Debian ovmf 2025.02-8+deb13u1, OVMF_CODE_4M.fd",
	"aa60124949ce585590aea155a43a23c632d64cbbe2a8dc8db79e7e2fd14e3269": "Debian ovmf 2025.02-8+deb13u1, OVMF_CODE_4M.secboot.fd",
	"6acac3eb6360105594a1c191ab4b09308ab2e3b51fcccc7ecc95b693c8170f9a": "Debian ovmf 2025.02-8+deb13u1, OVMF_CODE_4M.secboot.strictnx.fd",
	"6564cf7569e1ec5d5824aab128e7e0d080b2d0988068aa6cf4265b27b91db9c0": "Debian ovmf 2025.02-8+deb13u1, OVMF.fd",

	"fab585ff87c1101daa296895cd6945b7ad22a8f4de91fe9e72db6dec699b94c0": "Debian ovmf-generic 2026.08+ds-2, OVMF_CODE_4M.fd",
	"2d05a98ab343ab906e8c41ba85d545384868d97fb558774b6310871e7bcf20de": "Debian ovmf-generic 2026.08+ds-2, OVMF_CODE_4M.secboot.fd",
	"822ec914c6fef2aa8251c0ea79f766780d968e9951ea15752d17a452315568ef": "Debian ovmf-generic 2026.08+ds-2, OVMF_CODE_4M.secboot.strictnx.fd",
	"5ce6d983af8b64f310bf8ae33985f010639f1b7a38e652d616c2ee3d70389821": "Debian ovmf-generic 2026.08+ds-2, OVMF.fd",
}
