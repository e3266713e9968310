package manysha

import "golang.org/x/sys/cpu"

var hasLanes = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW

// blocks takes n blocks of 64 bytes from each lane's place into the state.
//
//go:noescape
func blocks(s *state, at *[lanes]*byte, constants *[64]uint32, n int)
