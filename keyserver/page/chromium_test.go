package page

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/testtool"
)

var screenshot = flag.String("screenshot", "", "write a picture of the example's overview to this file")

// browser is a headless Chromium whose every request beyond loopback ends at a recorder.
type browser struct {
	t       *testing.T
	program string
	proxy   *httptest.Server

	mu    sync.Mutex
	asked []string
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	const name = "chromium"
	if release, err := os.ReadFile("/etc/os-release"); err == nil && bytes.Contains(release, []byte("\nID=ubuntu\n")) {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("Ubuntu has Chromium as a snap only, which needs a running snapd")
		}
	}
	b := &browser{t: t, program: testtool.Program(t, name)}
	b.proxy = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.asked = append(b.asked, r.Method+" "+r.Host)
		http.Error(w, "no way out", http.StatusForbidden)
	}))
	t.Cleanup(b.proxy.Close)
	return b
}

// run starts the browser with a folder of its own and gives what it printed, and what its console said.
func (b *browser) run(args ...string) (out, console string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.program, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--user-data-dir=" + b.t.TempDir(), "--proxy-server=" + b.proxy.URL, "--enable-logging=stderr", "--v=0",
	}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+b.t.TempDir())
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		b.t.Fatalf("%s: %v\n%s", b.program, err, stderr.String())
	}
	return stdout.String(), stderr.String()
}

// left gives what was asked of other machines since the last call, Chromium's own services left out.
func (b *browser) left() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := slices.DeleteFunc(b.asked, func(s string) bool {
		_, host, _ := strings.Cut(s, " ")
		host, _, _ = strings.Cut(host, ":")
		return strings.HasSuffix(host, ".google.com") || strings.HasSuffix(host, ".googleapis.com") || strings.HasSuffix(host, ".gvt1.com")
	})
	b.asked = nil
	return list
}

// complains says whether the console tells of something that the policy stopped.
func complains(console string) bool { return strings.Contains(console, "Content Security Policy") }

// TestBrowserPremise shows that the browser would obey a hostile page, that this test would see it, and that the header
// stops it.
func TestBrowserPremise(t *testing.T) {
	b := newBrowser(t)
	const hostilePage = `<!doctype html><link rel="icon" href="data:,"><title>x</title><p id="p">untouched</p>
		<img src="http://elsewhere.example/x.png"><script>document.getElementById("p").textContent = "tou" + "ched"</script>`
	for _, guarded := range []bool{false, true} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if guarded {
				secure(w.Header())
			}
			w.Header().Set("Content-Type", "text/html")
			w.Write([]byte(hostilePage))
		}))
		dom, console := b.run("--dump-dom", server.URL)
		server.Close()
		if strings.Contains(dom, ">touched<") == guarded {
			t.Errorf("guarded %v: %s", guarded, dom)
		}
		if left := b.left(); (len(left) == 0) != guarded {
			t.Errorf("guarded %v: %v", guarded, left)
		}
		if complains(console) != guarded {
			t.Errorf("guarded %v: the console says\n%s", guarded, console)
		}
	}
}

// TestBrowser looks at every page as the browser makes it: its rows are there, the policy stopped nothing, and nothing was
// asked of anybody but the server.
func TestBrowser(t *testing.T) {
	b := newBrowser(t)
	visit := func(source Source, path string) (dom string) {
		t.Helper()
		var mu sync.Mutex
		asked := map[string]int{}
		inner := serve(t, source)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			status := httptest.NewRecorder()
			inner.ServeHTTP(status, r)
			mu.Lock()
			asked[r.Method+" "+r.RequestURI] = status.Code
			mu.Unlock()
			inner.ServeHTTP(w, r)
		}))
		defer server.Close()
		dom, console := b.run("--dump-dom", server.URL+path)
		if complains(console) {
			t.Errorf("%s: the console says\n%s", path, console)
		}
		if left := b.left(); len(left) != 0 {
			t.Errorf("%s asks %v", path, left)
		}
		mu.Lock()
		defer mu.Unlock()
		for what, status := range asked {
			if status != 200 || what != "GET "+path && what != "GET /style.css" && what != "GET /icon.svg" {
				t.Errorf("%s: %s gets %d", path, what, status)
			}
		}
		if asked["GET "+path] == 0 || asked["GET /style.css"] == 0 {
			t.Errorf("%s: asked %v", path, asked)
		}
		return dom
	}
	f := example()
	for path, want := range map[string][]string{
		"/":         {"<b>web-2025</b>", "Last refusals"},
		"/launches": {"<b>web1</b>", ">released</span>"},
		"/refusals": {"the digest is that of version 4 of image db", ">untrusted-platform</span>"},
		"/changes":  {"anna (admin)", "returned to the vendor"},
		"/audit":    {f.audit.PublicKey},
	} {
		dom := visit(f, path)
		for _, s := range want {
			if !strings.Contains(dom, s) {
				t.Errorf("%s does not show %q", path, s)
			}
		}
	}
	if dom := visit(f, "/refusals?before=1190"); strings.Contains(dom, "untrusted-platform") || strings.Count(dom, "<tr") < 3 {
		t.Error("an older page shows newer rows, or none")
	}
	for _, path := range []string{"/", "/changes"} {
		dom := visit(everywhere(strings.Join(hostile, " ")), path)
		if strings.Contains(dom, "<script") || strings.Contains(dom, "<img") || strings.Contains(dom, "<h1>owned") || strings.Count(dom, "<style") != 0 {
			t.Errorf("%s: markup of a host is the page's\n%s", path, dom)
		}
	}
}

// TestScreenshot has the browser paint: in the dark scheme, on a telephone, and the README's picture if -screenshot names a file.
// That the scheme and the width count shows in the pictures' bytes.
func TestScreenshot(t *testing.T) {
	b := newBrowser(t)
	server := httptest.NewServer(serve(t, example()))
	defer server.Close()
	folder := t.TempDir()
	paint := func(name string, width, height int, args ...string) []byte {
		t.Helper()
		file := filepath.Join(folder, name)
		b.run(append(args, fmt.Sprintf("--window-size=%d,%d", width, height), "--screenshot="+file, server.URL)...)
		picture, err := os.ReadFile(file)
		if err != nil || len(picture) < 10_000 {
			t.Fatalf("%s: %d bytes, %v", name, len(picture), err)
		}
		return picture
	}
	light := paint("light.png", 980, 940)
	if dark := paint("dark.png", 980, 940, "--blink-settings=preferredColorScheme=0"); bytes.Equal(light, dark) {
		t.Error("the dark scheme looks like the light one")
	}
	paint("telephone.png", 390, 844)
	if left := b.left(); len(left) != 0 {
		t.Errorf("asked %v", left)
	}
	if *screenshot != "" {
		if err := os.WriteFile(*screenshot, light, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
