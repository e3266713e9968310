package main

import "testing"

func TestSizeFlag(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "4G": 4 << 30, "512MiB": 512 << 20, "3k": 3 << 10, "2TiB": 2 << 40, "1048576": 1 << 20} {
		var s sizeFlag
		if err := s.Set(text); err != nil || int64(s) != want {
			t.Errorf("Set(%q) = %d, %v: want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "G", "0", "-1G", "1.5G", "4GB", "4X", "1 G", "9223372036854775807K", "0x10"} {
		var s sizeFlag
		if err := s.Set(text); err == nil || s != 0 {
			t.Errorf("Set(%q) = %d, %v: want an error", text, s, err)
		}
	}
}
