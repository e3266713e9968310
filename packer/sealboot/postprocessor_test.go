package sealboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
)

// fakeBuild plays `sealboot build`: it notes its arguments and standard input beside itself and makes what is asked for.
const fakeBuild = `#!/bin/sh
printf '%s\n' "$@" >"$0.args"
cat >"$0.stdin"
for arg; do
	case $arg in --output=*) out=${arg#--output=} ;; esac
done
for name in disk.qcow2 firmware.fd record.json passphrase; do echo "$name" >"$out/$name"; done
echo 'made all of it' >&2
printf '{"disk":"%s/disk.qcow2","firmware":"%s/firmware.fd","record":"%s/record.json","passphrase":"%s/passphrase",' "$out" "$out" "$out" "$out"
printf '"disk_uuid":"0b3f7a52-0000-4000-8000-000000000001","header_pin":"11","content_digest":"22","digests":[]}'
`

// bench is a good case: a fake sealboot, an artifact with one disk image, an output folder that is not there.
type bench struct {
	dir, program, output string
	input                *packersdk.MockArtifact
	fields               map[string]any
	said                 bytes.Buffer
	heard                func(line string) // what else to do with each message
}

func newBench(t *testing.T, script string) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{dir: dir, program: filepath.Join(dir, "sealboot"), output: filepath.Join(dir, "web1")}
	b.script(t, script)
	image := b.file(t, "built/packer-web1", "QFI\xfb")
	b.input = &packersdk.MockArtifact{FilesValue: []string{image}}
	b.fields = map[string]any{"output_directory": b.output, "sealboot": b.program}
	return b
}

func (b *bench) script(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(b.program, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(b.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
	return path
}

// ui keeps what is said.
type ui struct {
	packersdk.Ui
	b *bench
}

func (u ui) Say(s string) {
	fmt.Fprintln(&u.b.said, s)
	if u.b.heard != nil {
		u.b.heard(s)
	}
}
func (u ui) Message(s string) { u.Say(s) }
func (u ui) Error(s string)   { u.Say("error: " + s) }

func (b *bench) run(ctx context.Context, t *testing.T) (packersdk.Artifact, bool, bool, error) {
	t.Helper()
	var p PostProcessor
	if err := p.Configure(b.fields); err != nil {
		t.Fatal(err)
	}
	return p.PostProcess(ctx, ui{b: b}, b.input)
}

func (b *bench) read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// left gives the names in the folder, but for those that the bench put there.
func (b *bench) left(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != "built" && !strings.HasPrefix(e.Name(), "sealboot") {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestBuild(t *testing.T) {
	b := newBench(t, fakeBuild)
	b.fields["size"], b.fields["root_partition"], b.fields["vcpus"] = "8G", 2, "1-8"
	b.fields["kernels"] = []string{"a.deb", "b.deb"}
	artifact, keep, must, err := b.run(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"build", "--json", "--source=" + b.input.FilesValue[0], "--output=" + b.output, "--size=8G", "--vcpus=1-8",
		"--root-partition=2", "--kernel=a.deb", "--kernel=b.deb"}
	if got := strings.Fields(b.read(t, b.program+".args")); !slices.Equal(got, want) {
		t.Errorf("arguments %q, want %q", got, want)
	}
	files := []string{b.output + "/disk.qcow2", b.output + "/firmware.fd", b.output + "/record.json"}
	if !slices.Equal(artifact.Files(), files) {
		t.Errorf("files %q, want %q", artifact.Files(), files)
	}
	if keep || must {
		t.Errorf("keep %v, must %v: by default Packer removes the input", keep, must)
	}
	if artifact.Id() != "0b3f7a52-0000-4000-8000-000000000001" || artifact.BuilderId() != BuilderID || artifact.State("header_pin") != "11" ||
		artifact.State("content_digest") != "22" || artifact.State("disk_uuid") != artifact.Id() || artifact.State("other") != nil {
		t.Errorf("artifact %+v", artifact)
	}
	if said := b.said.String(); !strings.Contains(said, "made all of it\n") || !strings.Contains(said, b.input.FilesValue[0]) {
		t.Errorf("said %q", said)
	}
	// The passphrase outlives the artifact.
	if err := artifact.Destroy(); err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s after Destroy: %v", name, err)
		}
	}
	if got := artifact.State("passphrase_file"); got != b.output+"/passphrase" || b.read(t, b.output+"/passphrase") == "" {
		t.Errorf("passphrase_file is %v", got)
	}
}

// TestKeepsInput is an output that would go with the input's folder.
func TestKeepsInput(t *testing.T) {
	b := newBench(t, fakeBuild)
	b.fields["output_directory"] = filepath.Join(b.dir, "built", "web1")
	if _, keep, must, err := b.run(t.Context(), t); err != nil || !keep || !must {
		t.Errorf("keep %v, must %v, %v", keep, must, err)
	}
}

// TestPassphrase sees that a passphrase reaches sealboot whole, and nothing else.
func TestPassphrase(t *testing.T) {
	const passphrase = `{{ no template }} {{ user "x" }} %s corréct horse`
	b := newBench(t, fakeBuild+"\ntr '\\0' '\\n' </proc/$$/environ >\"$0.env\"\n")
	b.fields["passphrase"] = passphrase
	var logged bytes.Buffer
	packersdk.LogSecretFilter.SetOutput(&logged)
	log.SetOutput(&packersdk.LogSecretFilter)
	defer log.SetOutput(os.Stderr)
	artifact, _, _, err := b.run(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	log.Printf("%s", passphrase)
	if got := b.read(t, b.program+".stdin"); got != passphrase {
		t.Errorf("standard input %q, want %q", got, passphrase)
	}
	args := b.read(t, b.program+".args")
	if !strings.Contains(args, "--key-file=-\n") {
		t.Errorf("arguments %q", args)
	}
	if logged.Len() == 0 {
		t.Error("the log is empty: it shows nothing")
	}
	for where, text := range map[string]string{"arguments": args, "environment": b.read(t, b.program+".env"), "log": logged.String(),
		"messages": b.said.String(), "artifact": artifact.String()} {
		if strings.Contains(text, "horse") {
			t.Errorf("%s: %s", where, text)
		}
	}

	b = newBench(t, fakeBuild)
	b.fields["key_file"] = "/keys/web1"
	if _, _, _, err := b.run(t.Context(), t); err != nil {
		t.Fatal(err)
	}
	if args := b.read(t, b.program+".args"); !strings.Contains(args, "--key-file=/keys/web1\n") {
		t.Errorf("arguments %q", args)
	}
}

func TestConfigure(t *testing.T) {
	for _, c := range []struct {
		name   string
		fields map[string]any
		says   []string
	}{
		{"good", map[string]any{"output_directory": "out"}, nil},
		{"empty", map[string]any{}, []string{"output_directory is not set"}},
		{"two passphrases", map[string]any{"output_directory": "out", "key_file": "k", "passphrase": "opens"}, []string{"both set"}},
		{"standard input", map[string]any{"output_directory": "out", "key_file": "-"}, []string{"standard input"}},
		{"partition", map[string]any{"root_partition": -1}, []string{"root_partition is -1", "output_directory is not set"}},
		{"unknown field", map[string]any{"output_directory": "out", "colour": "red"}, []string{"colour"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := new(PostProcessor).Configure(c.fields)
			if c.says == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, says := range c.says {
				if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "opens") {
					t.Errorf("%v, want %q", err, says)
				}
			}
		})
	}
	var p PostProcessor
	if err := p.Configure(map[string]any{"output_directory": "out"}); err != nil || p.config.Sealboot != "sealboot" {
		t.Errorf("sealboot is %q, %v", p.config.Sealboot, err)
	}
}

// TestFailures spoils the good case. Nothing is left of the output folder.
func TestFailures(t *testing.T) {
	fails := func(code int, says string) string {
		return fmt.Sprintf("#!/bin/sh\nfor arg; do case $arg in --output=*) echo half >${arg#--output=}/disk.qcow2 ;; esac; done\necho first >&2\necho 'sealboot: %s' >&2\nexit %d\n", says, code)
	}
	for _, c := range []struct {
		name, script string
		code         int
		says         string
	}{
		{"broken", fails(1, "disk full"), 1, "sealboot: disk full"},
		{"wrong use", fails(2, "--vcpus: 0 is no number"), 2, "correct the post-processor's fields"},
		{"a clear no", fails(3, "not yours"), 3, "refuses (exit code 3): first\nsealboot: not yours"},
		{"silent", "#!/bin/sh\nexit 1\n", 1, "sealboot build failed (exit status 1)"},
		{"killed", "#!/bin/sh\nkill -9 $$\n", -1, "signal: killed"},
		{"no JSON", "#!/bin/sh\necho done\n", 0, "is it another version"},
		{"no disk", "#!/bin/sh\necho '{}'\n", 0, "no disk_uuid"},
		{"made nothing", "#!/bin/sh\necho '{\"disk_uuid\":\"1\",\"disk\":\"/no/such/disk\"}'\n", 0, "look for what sealboot made"},
		{"made a folder", "#!/bin/sh\necho '{\"disk_uuid\":\"1\",\"disk\":\"/\"}'\n", 0, "which is not a file"},
		{"prints without end", "#!/bin/sh\nexec yes\n", 0, "printed more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.script)
			artifact, _, _, err := b.run(t.Context(), t)
			if err == nil || artifact != nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v, %v; want %q", artifact, err, c.says)
			}
			if failed := (*RunError)(nil); errors.As(err, &failed) != (c.code != 0) || c.code != 0 && failed.Code != c.code {
				t.Errorf("%#v, want code %d", err, c.code)
			}
			if left := b.left(t); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
	t.Run("no sealboot", func(t *testing.T) {
		b := newBench(t, fakeBuild)
		b.fields["sealboot"] = filepath.Join(b.dir, "nowhere")
		if _, _, _, err := b.run(t.Context(), t); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "set the field sealboot") {
			t.Errorf("%v", err)
		}
		if left := b.left(t); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

// TestOutputFolder is an output folder that is there already.
func TestOutputFolder(t *testing.T) {
	good := newBench(t, fakeBuild)
	if _, _, _, err := good.run(t.Context(), t); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := good.run(t.Context(), t); err == nil || !strings.Contains(err.Error(), "packer build -force") {
		t.Errorf("second build: %v", err)
	}
	keep := good.file(t, "web1/passphrase", "the only one")

	// -force, and sealboot fails: all is as it was.
	good.fields["packer_force"] = true
	good.script(t, "#!/bin/sh\nexit 1\n")
	if _, _, _, err := good.run(t.Context(), t); err == nil || good.read(t, keep) != "the only one" {
		t.Errorf("failed -force: %v", err)
	}
	if left := good.left(t); !slices.Equal(left, []string{"web1"}) {
		t.Errorf("left behind: %q", left)
	}
	// An earlier -force was killed.
	good.script(t, fakeBuild)
	earlier := good.file(t, "web1.old/passphrase", "earlier")
	if _, _, _, err := good.run(t.Context(), t); err == nil || !strings.Contains(err.Error(), "web1.old") || good.read(t, keep) != "the only one" {
		t.Errorf("-force after one that was killed: %v", err)
	}
	if err := os.RemoveAll(filepath.Dir(earlier)); err != nil {
		t.Fatal(err)
	}
	// Something of others is in it.
	other := good.file(t, "web1/notes", "mine")
	if _, _, _, err := good.run(t.Context(), t); err == nil || !strings.Contains(err.Error(), "notes") || good.read(t, other) != "mine" {
		t.Errorf("-force over a folder with other files: %v", err)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := good.run(t.Context(), t); err != nil || good.read(t, keep) != "passphrase\n" {
		t.Errorf("-force: %v", err)
	}
	if left := good.left(t); !slices.Equal(left, []string{"web1"}) {
		t.Errorf("left behind: %q", left)
	}
}

// TestPlugin asks the program what it is, as Packer does.
func TestPlugin(t *testing.T) {
	program := filepath.Join(t.TempDir(), "packer-plugin-sealboot")
	if out, err := exec.Command("go", "build", "-o", program, "..").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(program, "describe").Output()
	if err != nil || !bytes.Contains(out, []byte(`"post_processors":["-packer-default-plugin-name-"]`)) || !bytes.Contains(out, []byte(`"api_version":"x5.0"`)) {
		t.Errorf("describe: %s, %v", out, err)
	}
	if out, err := exec.Command(program).CombinedOutput(); err == nil || !bytes.HasPrefix(out, []byte("packer-plugin-sealboot: ")) {
		t.Errorf("without arguments: %s, %v", out, err)
	}
}
