package sev

import (
	"encoding/hex"
	"fmt"
	"maps"
)

// RootDigest is the SHA-256 of a root key's DER SubjectPublicKeyInfo.
type RootDigest [32]byte

func (d RootDigest) String() string { return hex.EncodeToString(d[:]) }

// ParseRootDigest reads 64 hexadecimal digits.
func ParseRootDigest(s string) (RootDigest, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 32 {
		return RootDigest{}, fmt.Errorf("root digest %q: want 64 hexadecimal digits", s)
	}
	return RootDigest(b), nil
}

// RootSet names the roots that are trusted. An empty one trusts nobody.
type RootSet map[RootDigest]string

// AMDRoots gives AMD's root keys (ARK) of every product with SEV, computed from the
// certificates that AMD publishes at developer.amd.com/sev and in its key distribution service.
func AMDRoots() RootSet { return maps.Clone(amdRoots) }

// With adds a root under a name.
func (s RootSet) With(name string, digest RootDigest) RootSet {
	out := maps.Clone(s)
	if out == nil {
		out = RootSet{}
	}
	out[digest] = name
	return out
}

var naples = mustRoot("3a04f8f1347de206c9206a81148ba4ef0a233b245d43a15dd82de043bb3e4f69")

var amdRoots = RootSet{
	naples: "Naples",
	mustRoot("7447ffa21e2b938bfade89f5e9066c00a328813bfc43685605cceabd18da6fde"): "Rome",
	mustRoot("9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9"): "Milan",
	mustRoot("429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831"): "Genoa",
	mustRoot("4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08"): "Turin",
}

func mustRoot(s string) RootDigest {
	d, err := ParseRootDigest(s)
	if err != nil {
		panic(err)
	}
	return d
}
