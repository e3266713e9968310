// Command demo shows the whole way on one machine without SEV hardware: an encrypted disk
// that boots, and a tampered firmware that gets nothing. It is what `make demo` runs.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/sealboot/sealboot/e2e/lab"
)

const bootLimit = 10 * time.Minute // for one launch, on however slow a machine

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	project, deps := flag.String("project", ".", "the project's folder"), flag.String("deps", "", "what make deps fetched (default: PROJECT/.cache/deps)")
	verbose := flag.Bool("verbose", false, "show the commands that are run and the guest's console")
	flag.Parse()
	if err := run(ctx, *project, *deps, *verbose, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, project, deps string, verbose bool, out io.Writer) error {
	project, err := filepath.Abs(project)
	if err != nil {
		return err
	}
	if deps == "" {
		if deps = os.Getenv("SEALBOOT_DEPS"); deps == "" {
			deps = filepath.Join(project, ".cache", "deps")
		}
	}
	dir, err := os.MkdirTemp("", "sealboot-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &demo{cache: filepath.Dir(deps), Lab: &lab.Lab{Bin: filepath.Join(project, "bin"), Deps: deps, Dir: dir, Log: io.Discard}, out: out, verbose: verbose}
	if verbose {
		d.Log = out
	}
	return d.show(ctx)
}

type demo struct {
	*lab.Lab
	out     io.Writer
	verbose bool
	cache   string // folder for what the next demo need not make again
	table   [][2]string
	secret  []byte
	image   lab.Image
	server  *lab.Server
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func (d *demo) timed(what string, spent time.Duration) {
	d.table = append(d.table, [2]string{what, fmt.Sprintf("%.2f s", spent.Seconds())})
}

func (d *demo) show(ctx context.Context) (err error) {
	begun := time.Now()
	if err := d.build(ctx); err != nil {
		return err
	}
	if err := d.Register(ctx, d.image); err != nil {
		return err
	}
	if d.server, err = d.Serve(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.server.Stop()) }()
	d.say("The key server listens on %s and knows the image.\n", d.server.URL)
	if err := d.good(ctx); err != nil {
		return err
	}
	if err := d.tampered(ctx); err != nil {
		return err
	}
	d.timed("all of it", time.Since(begun))
	w := tabwriter.NewWriter(d.out, 0, 8, 2, ' ', tabwriter.AlignRight)
	for _, row := range d.table {
		fmt.Fprintf(w, "%s\t%s\t\n", row[0], row[1])
	}
	return w.Flush()
}

// build makes a root file system, and an image from it.
func (d *demo) build(ctx context.Context) error {
	d.secret = make([]byte, 32)
	rand.Read(d.secret)
	rootfs := d.Path("rootfs.tar")
	if err := d.root(ctx, rootfs); err != nil {
		return err
	}
	d.say("Building: sealboot build --source rootfs.tar --size 3G --output image")
	begun := time.Now()
	image, seconds, err := d.Build(ctx, "image", rootfs, "3G")
	if err != nil {
		return err
	}
	d.image = image
	d.timed("sealboot build", time.Since(begun))
	for _, stage := range []struct{ name, what string }{
		{"initramfs", "agent and modules for the guest's kernel"}, {"disk", "encrypted disk"},
		{"grub", "GRUB and firmware"}, {"measure", "launch digests"},
	} {
		d.timed("· "+stage.what, time.Duration(seconds[stage.name]*float64(time.Second)))
	}
	return nil
}

// root makes a Debian with systemd, as mmdebstrap makes it, or where that does not work a small system of busybox.
func (d *demo) root(ctx context.Context, rootfs string) error {
	begun := time.Now()
	suite, err := debianSuite()
	if err == nil {
		d.say("Making a Debian (%s) with systemd and the distribution's kernel, by mmdebstrap; it is kept in %s", suite, d.cache)
		debian := lab.Debian{Suite: suite, Packages: []string{"initramfs-tools"}}
		if err = debian.Cached(ctx, d.cache, rootfs, d.secret); err == nil {
			d.timed("Debian with systemd, or a copy of the last one", time.Since(begun))
			return nil
		}
	}
	d.say("No Debian, but a small system of busybox: %v", err)
	begun = time.Now()
	if err := lab.MakeRootFS(ctx, d.Deps, rootfs, d.secret); err != nil {
		return err
	}
	d.timed("root file system from the distribution's packages", time.Since(begun))
	return nil
}

// debianSuite gives the name of this machine's Debian, whose keys and sources are here.
func debianSuite() (string, error) {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[name] = strings.Trim(value, `"`)
	}
	if values["ID"] != "debian" || values["VERSION_CODENAME"] == "" {
		return "", fmt.Errorf("this is %s, not Debian", values["PRETTY_NAME"])
	}
	return values["VERSION_CODENAME"], nil
}

// good launches the image as an honest host does.
func (d *demo) good(ctx context.Context) error {
	d.say("An honest host: sealboot launch --image image --qemu qemu-sev …")
	o, err := d.launch(ctx, lab.Machine{Image: d.image, Server: d.server.URL})
	if err != nil {
		return err
	}
	want := lab.WantProof(o.Nonce, d.secret)
	d.say("  nonce    %s  (chosen by this program)", o.Nonce)
	d.say("  proof    %s  (computed in the guest from a file of its encrypted root)", o.Proof)
	d.say("  expected %s", want)
	if o.Code != 0 || o.Proof != want {
		return fmt.Errorf("the guest did not prove that it runs from the encrypted root (exit code %d, stopped: %q)\n%s%s", o.Code, o.Stopped(), o.Console, o.Stderr)
	}
	d.say("  The guest runs from the encrypted root.\n")
	d.timed("launch: power-on to a booted system", o.ToRoot)
	for _, stage := range []struct{ name, what string }{
		{"platform", "certificates and version of the secure processor"}, {"session", "session from the key server"},
		{"start", "QEMU started, firmware measured"}, {"measure", "measurement taken"},
		{"release", "measurement to the key server, secret back"}, {"inject", "secret into the guest's memory"},
	} {
		if spent, ok := o.Stages[stage.name]; ok {
			d.timed("· "+stage.what, time.Duration(spent*float64(time.Second)))
		}
	}
	return nil
}

// tampered launches a firmware in which one byte is another.
func (d *demo) tampered(ctx context.Context) error {
	firmware := d.Path("tampered.fd")
	if err := lab.FlipByte(d.image.Firmware(), firmware, 0x1000); err != nil {
		return err
	}
	d.say("A host that changed one byte of the firmware: sealboot launch --firmware tampered.fd …")
	o, err := d.launch(ctx, lab.Machine{Image: d.image, Server: d.server.URL, Firmware: firmware})
	if err != nil {
		return err
	}
	decisions, err := d.Audit(ctx)
	if err != nil {
		return err
	}
	last := decisions[len(decisions)-1]
	d.say("  host sees:  %s (exit code %d)", strings.TrimSpace(o.Stderr), o.Code)
	d.say("  owner sees: %s: %s: %s", last.Class, last.Cause, last.Reason)
	if o.Code != 3 || o.Proof != "" || o.Console != "" || last.Event != "release" || last.Class == "" {
		return fmt.Errorf("the tampered firmware was not refused (exit code %d)\n%s%s", o.Code, o.Console, o.Stderr)
	}
	d.say("  Nothing booted: the guest's console is empty.\n")
	d.timed("launch of the tampered firmware, refused", o.Spent)
	return nil
}

func (d *demo) launch(ctx context.Context, m lab.Machine) (lab.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	if d.verbose {
		m.OnConsole = func(line, _ string) { d.say("  | %s", line) }
	}
	return d.Launch(ctx, m)
}
