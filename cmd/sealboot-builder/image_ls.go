package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/source"
)

// listedFile is an element of what `image ls --json` prints.
type listedFile struct {
	Path  string `json:"path"`
	Type  string `json:"type"`
	Mode  string `json:"mode"` // octal
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	Size  int64  `json:"size"`
	Time  string `json:"time"`
	Links uint64 `json:"links"`
	Link  string `json:"link,omitempty"`
	Major uint32 `json:"major,omitempty"`
	Minor uint32 `json:"minor,omitempty"`
}

func (a *app) imageLsCommand() *cobra.Command {
	var flags browseFlags
	var recursive, asJSON bool
	cmd := &cobra.Command{
		Use:   "ls DISK --key-file FILE [PATH]",
		Short: "List files inside an encrypted disk, without mounting it",
		Long: `ls decrypts what it has to read and lists a file or a folder (/ if none is given): mode, number of names, owner and group
by number, size, time (UTC), name, and where a symbolic link leads. Symbolic links in PATH are followed, inside the disk. Names that
would confuse a terminal are quoted.

The root partition must hold ext2, ext3 or ext4, or XFS or Btrfs behind a boot volume, which is seen at /boot as in the guest. The journal of
an ext4 file system that was not unmounted cleanly is replayed in memory; where that cannot be, a warning says that what changed last may be missing. The disk is never written. Exit code 3: the passphrase does not open the disk, or there is no such file.

With --json, an array of {path, type (file, folder, symbolic link, character device, block device, named pipe, socket), mode, uid,
gid, size, time, links, link, major, minor}.`,
		Example: `  sealboot image ls disk.qcow2 --key-file passphrase /boot
  sealboot image ls -R disk.qcow2 --key-file passphrase /etc --json | jq -r '.[].path'`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := a.browse(cmd.Context(), args[0], flags)
			if err != nil {
				return err
			}
			defer b.Close()
			name := append(args, "/")[1]
			node, err := b.find(name)
			if err != nil {
				return imageErr(args[0], err)
			}
			out := bufio.NewWriterSize(a.stdout, 1<<16)
			list := &listing{out: out, asJSON: asJSON}
			if err := errors.Join(list.all(cmd.Context(), node, path.Clean("/"+name), recursive), out.Flush()); err != nil {
				return imageErr(args[0], err)
			}
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVarP(&recursive, "recursive", "R", false, "list folders and all below them")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// listing writes lines or a JSON array, one after the other: a tree may be large.
type listing struct {
	out    *bufio.Writer
	asJSON bool
	count  int
}

// all lists a file, what is in a folder, or a folder and all below it.
func (l *listing) all(ctx context.Context, node *fsys.Node, name string, recursive bool) error {
	e, err := node.Stat(name)
	if err != nil {
		return err
	}
	switch {
	case recursive:
		err = node.Walk(ctx, func(below string, n *fsys.Node) error {
			e, err := n.Stat(path.Join(name, below))
			if err != nil {
				return err
			}
			return l.entry(e, n.Links(), e.Path)
		})
	case e.Type == source.Folder:
		err = l.folder(ctx, node, name)
	default:
		err = l.entry(e, node.Links(), name)
	}
	if l.asJSON && err == nil {
		if l.count == 0 {
			l.out.WriteString("[")
		}
		_, err = l.out.WriteString("]\n")
	}
	return err
}

func (l *listing) folder(ctx context.Context, node *fsys.Node, name string) error {
	children, err := node.Children()
	if err != nil {
		return err
	}
	for _, c := range children {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := c.Node()
		if err != nil {
			return err
		}
		e, err := n.Stat(path.Join(name, c.Name))
		if err != nil {
			return err
		}
		if err := l.entry(e, n.Links(), c.Name); err != nil {
			return err
		}
	}
	return nil
}

// entry writes one file.
func (l *listing) entry(e source.Entry, links uint64, shown string) error {
	defer func() { l.count++ }()
	kind := "socket"
	if e.Type != fsys.Socket {
		kind = e.Type.String()
	}
	if l.asJSON {
		l.out.WriteString(map[bool]string{true: "[\n", false: ",\n"}[l.count == 0])
		return printJSON(l.out, listedFile{
			Path: e.Path, Type: kind, Mode: fmt.Sprintf("%04o", e.Mode), UID: e.UID, GID: e.GID, Size: e.Size + int64(len(e.Link)),
			Time: e.ModTime.UTC().Format(time.RFC3339Nano), Links: links, Link: e.Link, Major: e.Major, Minor: e.Minor,
		})
	}
	size := strconv.FormatInt(e.Size+int64(len(e.Link)), 10) // a symbolic link's size is its target's length
	if e.Type == source.CharDevice || e.Type == source.BlockDevice {
		size = fmt.Sprintf("%d, %d", e.Major, e.Minor)
	}
	text := quoted(shown)
	if e.Type == source.Symlink {
		text += " -> " + quoted(e.Link)
	}
	_, err := fmt.Fprintf(l.out, "%s %2d %5d %5d %10s %s %s\n", modeText(e), links, e.UID, e.GID, size, e.ModTime.UTC().Format("2006-01-02 15:04"), text)
	return err
}

// quoted keeps what would confuse a terminal, or a reader, out of a name.
func quoted(name string) string {
	if q := strconv.Quote(name); q != `"`+name+`"` {
		return q
	}
	return name
}

// modeText writes a mode as ls does.
func modeText(e source.Entry) string {
	kinds := map[source.Type]byte{source.Regular: '-', source.Folder: 'd', source.Symlink: 'l', source.CharDevice: 'c', source.BlockDevice: 'b', source.FIFO: 'p', fsys.Socket: 's'}
	text := []byte("?rwxrwxrwx")
	text[0] = kinds[e.Type]
	for i := range 9 {
		if e.Mode>>(8-i)&1 == 0 {
			text[1+i] = '-'
		}
	}
	for i, bit := range []uint32{0o4000, 0o2000, 0o1000} {
		if e.Mode&bit == 0 {
			continue
		}
		at, with, without := 3*(1+i), "sst"[i], "SST"[i]
		if text[at] == 'x' {
			text[at] = with
		} else {
			text[at] = without
		}
	}
	return string(text)
}
