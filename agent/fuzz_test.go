package agent

import (
	"strings"
	"testing"
)

// FuzzParseOrder: any command line gives an order that can be carried out, or an error.
func FuzzParseOrder(f *testing.F) {
	good := "root=/dev/mapper/sealboot-root sealboot.disk=" + testUUID + ` ro "a b" rootflags="x y" init=/sbin/init -- z`
	for _, s := range []string{good, "", `"`, "sealboot.disk=", "sealboot.disk=" + testUUID + " init=x", "-- sealboot.disk=" + testUUID} {
		f.Add(s)
	}
	if o, err := ParseOrder(good); err != nil || o.Options != "x y" {
		f.Fatalf("the first seed gives %+v, %v", o, err)
	}
	f.Fuzz(func(t *testing.T, line string) {
		o, err := ParseOrder(line)
		if err != nil {
			if o != (Order{}) {
				t.Errorf("%+v beside the error %v", o, err)
			}
			return
		}
		if !isUUID(o.Disk) || !strings.HasPrefix(o.Init, "/") {
			t.Errorf("order %+v", o)
		}
	})
}

// FuzzPrintable: whatever a disk holds, a reason stays one line of plain characters.
func FuzzPrintable(f *testing.F) {
	f.Add("stopped: \x1b[31m\r\nsealboot: disk unlocked")
	f.Add(strings.Repeat("\xff", 1000))
	f.Fuzz(func(t *testing.T, text string) {
		got := printable(text)
		if len(got) > maxLine+len("; ...") || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q", got)
		}
	})
}
