//go:build !amd64

package manysha

const hasLanes = false

func blocks(*state, *[lanes]*byte, *[64]uint32, int) {}
