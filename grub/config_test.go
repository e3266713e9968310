package grub_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/grub"
)

func TestConfigText(t *testing.T) {
	got, err := grub.Config{DiskUUID: testDiskUUID, Append: " console=ttyS0  quiet ", Serial: true}.Text()
	if err != nil {
		t.Fatal(err)
	}
	want := `# Settings of GRUB's module efisecret, which alone reads this file.
version='1'
disk_uuid='0d5a1f4e-55c5-4e0e-9a5e-0f2b7a6a3c11'
append='console=ttyS0 quiet'
serial='1'
`
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestConfigModule writes a configuration and has the module's code read it.
func TestConfigModule(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		config grub.Config
		want   string
	}{
		{grub.Config{}, "ok 0||"},
		{grub.Config{DiskUUID: testDiskUUID, Append: "a b=$c;`d` #e (f)", Serial: true}, "ok 1|" + testDiskUUID + "|a b=$c;`d` #e (f)"},
		{grub.Config{Append: strings.Repeat("x", 1536)}, "ok 0||" + strings.Repeat("x", 1536)},
	} {
		text, err := c.config.Text()
		if err != nil {
			t.Fatal(err)
		}
		if got := h.ask(t, 's', []byte(text)); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.config, got, c.want)
		}
	}
}

// TestConfigRefused spoils the text of a good configuration.
func TestSettingsRefused(t *testing.T) {
	h := newHost(t)
	good, err := grub.Config{DiskUUID: testDiskUUID, Append: "quiet"}.Text()
	if err != nil {
		t.Fatal(err)
	}
	if got := h.ask(t, 's', []byte(good)); !strings.HasPrefix(got, "ok ") {
		t.Fatal(got)
	}
	change := func(old, new string) string {
		if strings.Count(good, old) != 1 {
			t.Fatalf("%q stands %d times in %s", old, strings.Count(good, old), good)
		}
		return strings.Replace(good, old, new, 1)
	}
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "settings: they do not end with a line's end"},
		{"cut", good[:len(good)-1], "settings: they do not end with a line's end"},
		{"only a comment", "#\n", "settings: one is missing"},
		{"a command", good + "normal\n", "settings: a line that is not known"},
		{"an unknown name", good + "debug='all'\n", "settings: a line that is not known"},
		{"a name too long", good + "serials='0'\n", "settings: a line that is not known"},
		{"twice", good + "serial='0'\n", "settings: a name stands there twice"},
		{"missing", change("serial='0'\n", ""), "settings: one is missing"},
		{"no quotes", change("'quiet'", "quietly"), "settings: a value is not in quotes"},
		{"quote left open", change("'quiet'", "'quiet"), "settings: a value is not in quotes"},
		{"quote within", change("'quiet'", "'qu'et'"), "settings: a value holds a character that must not be there"},
		{"control character", change("'quiet'", "'qu\x1bet'"), "settings: a value holds a character that must not be there"},
		{"NUL", change("'quiet'", "'qu\x00et'"), "settings: a value holds a character that must not be there"},
		{"too long", change("'quiet'", "'"+strings.Repeat("x", 1537)+"'"), "settings: a value is too long"},
		{"version", change("version='1'", "version='2'"), "settings: they are of another version"},
		{"half a UUID", change(testDiskUUID, testDiskUUID[:35]), "settings: disk_uuid is no UUID"},
		{"serial", change("serial='0'", "serial=''"), "settings: serial is neither 0 nor 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := h.ask(t, 's', []byte(c.text)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestConfigValidate(t *testing.T) {
	for _, c := range []struct {
		config  grub.Config
		setting string // "": valid
	}{
		{grub.Config{}, ""},
		{grub.Config{DiskUUID: testDiskUUID, Append: "console=tty0 console=ttyS0,115200n8 rw systemd.log_level=info"}, ""},
		{grub.Config{DiskUUID: strings.ToUpper(testDiskUUID)}, "disk UUID"},
		{grub.Config{DiskUUID: "x"}, "disk UUID"},
		{grub.Config{DiskUUID: testDiskUUID + "\n"}, "disk UUID"},
		{grub.Config{Append: "quiet\nnormal"}, "append"},
		{grub.Config{Append: "a\tb"}, "append"},
		{grub.Config{Append: "a'b"}, "append"},
		{grub.Config{Append: `a="b c"`}, "append"},
		{grub.Config{Append: `a\b`}, "append"},
		{grub.Config{Append: "caf\u00e9"}, "append"},
		{grub.Config{Append: "\x7f"}, "append"},
		{grub.Config{Append: strings.Repeat("x", 1537)}, "append"},
		{grub.Config{Append: "quiet root=/dev/vda1"}, "append"},
		{grub.Config{Append: "rdinit=/bin/sh"}, "append"},
		{grub.Config{Append: "sealboot.disk=x"}, "append"},
		{grub.Config{Append: "noinitrd"}, "append"},
		{grub.Config{Append: "rootflags=noatime rootwait"}, ""},
	} {
		err := c.config.Validate()
		var wrong *grub.ConfigError
		switch {
		case c.setting == "" && err != nil:
			t.Errorf("%+v: %v", c.config, err)
		case c.setting != "" && (!errors.As(err, &wrong) || wrong.Setting != c.setting):
			t.Errorf("%+v: error %v, want one about %s", c.config, err, c.setting)
		}
		if _, err2 := c.config.Text(); (err == nil) != (err2 == nil) {
			t.Errorf("%+v: Validate says %v, Text %v", c.config, err, err2)
		}
	}
	err := grub.Config{DiskUUID: "x", Append: "root=y"}.Validate()
	if err == nil || !strings.Contains(err.Error(), "disk UUID") || !strings.Contains(err.Error(), "append") {
		t.Errorf("not every complaint: %v", err)
	}
}

// FuzzConfig has the module read what Text wrote: it must see the same, or never get it.
func FuzzConfig(f *testing.F) {
	f.Add("", "console=ttyS0", false)
	f.Add(testDiskUUID, "a='b'\nnormal", true)
	h := newHost(f)
	f.Fuzz(func(t *testing.T, uuid, words string, serial bool) {
		text, err := grub.Config{DiskUUID: uuid, Append: words, Serial: serial}.Text()
		if err != nil {
			return
		}
		want := "ok 0|"
		if serial {
			want = "ok 1|"
		}
		want += uuid + "|" + strings.Join(strings.Fields(words), " ")
		if got := h.ask(t, 's', []byte(text)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// FuzzSettings gives the module's reader any bytes; the sanitizers judge.
func FuzzSettings(f *testing.F) {
	text, err := grub.Config{DiskUUID: testDiskUUID, Append: "quiet"}.Text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(text))
	f.Add([]byte("append='\n'\n"))
	h := newHost(f)
	f.Fuzz(func(t *testing.T, text []byte) { h.ask(t, 's', text) })
}
