package xfs

import (
	"regexp"
	"testing"

	"github.com/sealboot/sealboot/image/fsys/fsystest"
	"github.com/sealboot/sealboot/internal/testtool"
)

var opener = fsystest.Opener[*Reader](Open)

func open(t testing.TB, path string) *Reader { t.Helper(); return opener.Open(t, path) }

// mkfs makes an empty file system; small ones need the variables by which mkfs.xfs knows its own tests.
func mkfs(t testing.TB, size int64, args ...string) string {
	t.Helper()
	for _, name := range []string{"TEST_DIR", "TEST_DEV", "QA_CHECK_FS"} {
		t.Setenv(name, "1")
	}
	return fsystest.Mkfs(t, testtool.Program(t, "mkfs.xfs"), size, args...)
}

// ownForm are access control lists as the file system keeps them.
var ownForm = regexp.MustCompile(` "trusted.SGI_ACL_[A-Z]+" \d+ [0-9a-f]+`)

// withoutOwnForm: the kernel lists them twice.
func withoutOwnForm(list []string) []string {
	for i := range list {
		list[i] = ownForm.ReplaceAllString(list[i], "")
	}
	return list
}

// TestKernel compares what the kernel reads with what the package reads.
func TestKernel(t *testing.T) {
	for name, args := range map[string][]string{"many extents": {"-i", "nrext64=1"}, "small blocks": {"-b", "size=1024", "-n", "size=8192", "-m", "rmapbt=1"}} {
		t.Run(name, func(t *testing.T) {
			opener.Kernel(t, mkfs(t, 320<<20, args...), "", 4000, withoutOwnForm, testtool.Program(t, "xfs_repair"), "-n")
		})
	}
}

func TestFar(t *testing.T) { opener.Far(t, mkfs(t, 320<<20)) }
