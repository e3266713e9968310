package guid

import "testing"

func TestTextAndStoredForm(t *testing.T) {
	// OVMF's footer GUID as it stands in the firmware file.
	const text = "96b582de-1fb2-45f7-baea-a366c55a082d"
	stored := GUID{0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d}
	got, err := Parse(text)
	if err != nil || got != stored {
		t.Fatalf("Parse(%q) = %x, %v", text, got, err)
	}
	if got.String() != text {
		t.Errorf("String() = %q", got.String())
	}
	for _, bad := range []string{"", text[:35], text + "0", "96b582de+1fb2-45f7-baea-a366c55a082d", "96b582dg-1fb2-45f7-baea-a366c55a082d"} {
		if g, err := Parse(bad); err == nil || !g.IsZero() {
			t.Errorf("Parse(%q) = %v, %v: want an error and a zero GUID", bad, g, err)
		}
	}
}
