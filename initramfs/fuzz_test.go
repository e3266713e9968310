package initramfs

import (
	"bytes"
	"debug/elf"
	"testing"

	"github.com/sealboot/sealboot/agent"
)

// FuzzModule: a module's file gives a module or an error, and never more than was there.
func FuzzModule(f *testing.F) {
	seeds := [][]byte{
		ko("depends=a,b-c", "softdep=pre: x post: y", "license=GPL"), ko(), program(false),
		elfFile(elf.ET_REL, nil, []byte("depends=without an end")), nil, []byte("\x7fELF"),
	}
	for _, s := range seeds {
		f.Add(s)
	}
	if m, err := readModule("k.ko", bytes.NewReader(seeds[0])); err != nil || len(m.depends) != 2 || m.depends[1] != "b_c" {
		f.Fatalf("the first seed is no module: %+v, %v", m, err)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := readModule("k.ko", bytes.NewReader(content))
		if (err == nil) != (m != nil) {
			t.Fatalf("module %v, error %v", m, err)
		}
		if err == nil && !bytes.Equal(m.content, content) {
			t.Error("the module is not the file")
		}
	})
}

// TestAgentAgrees: what is packed here is what the agent looks for.
func TestAgentAgrees(t *testing.T) {
	for ours, agents := range map[string]string{"/" + folder: agent.Folder, "/" + listPath: agent.ModuleList, "/" + modulesPath: agent.ModuleFolder} {
		if ours != agents {
			t.Errorf("packed as %s, looked for as %s", ours, agents)
		}
	}
	src := tree(t, goodTree(t, "")...)
	out, err := Build(t.Context(), src, onlyKernel(t, src), program(false))
	if err != nil {
		t.Fatal(err)
	}
	members := readCPIO(t, out)
	loaded := 0
	err = agent.LoadModules(string(members[listPath]), func(file string) error {
		if members[file[1:]] == nil {
			t.Errorf("%s is not in the archive", file)
		}
		loaded++
		return nil
	})
	if err != nil || loaded != len(members)-4 {
		t.Errorf("the agent loaded %d modules of %d members: %v", loaded, len(members), err)
	}
}
