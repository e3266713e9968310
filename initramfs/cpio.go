package initramfs

import (
	"bytes"
	"fmt"
)

// archive writes a cpio in the "newc" format (cpio(5), "New ASCII Format"; Linux
// Documentation/driver-api/early-userspace/buffer-format): a header of 110 bytes in
// hexadecimal, the name with its zero byte, the content, each padded to 4 bytes.
type archive struct {
	w     *bytes.Buffer
	inode uint32
}

const (
	modeFolder  = 0o040000
	modeRegular = 0o100000
)

func (a *archive) folder(name string) { a.member(name, modeFolder|0o755, 2, nil) }
func (a *archive) file(name string, perm uint32, content []byte) {
	a.member(name, modeRegular|perm, 1, content)
}
func (a *archive) end() { a.inode = 0; a.write("TRAILER!!!", 0, 0, 1, nil) }

func (a *archive) member(name string, mode, links uint32, content []byte) {
	a.inode++
	a.write(name, a.inode, mode, links, content)
}

func (a *archive) write(name string, inode, mode, links uint32, content []byte) {
	a.w.WriteString("070701")
	// ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
	for _, field := range [...]uint32{inode, mode, 0, 0, links, 0, uint32(len(content)), 0, 0, 0, 0, uint32(len(name) + 1), 0} {
		fmt.Fprintf(a.w, "%08X", field)
	}
	a.w.WriteString(name)
	a.w.WriteByte(0)
	a.pad()
	a.w.Write(content)
	a.pad()
}

func (a *archive) pad() {
	for a.w.Len()%4 != 0 {
		a.w.WriteByte(0)
	}
}
