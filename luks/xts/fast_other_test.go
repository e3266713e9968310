//go:build !amd64

package xts

type fastPath struct {
	name   string
	choose func() (restore func())
}

func fastPaths() []fastPath { return nil }
