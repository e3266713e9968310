package ext4

import (
	"bytes"
	"fmt"
	"io"

	"github.com/sealboot/sealboot/image/source"
)

// Put stores an entry: a regular file with its content from the reader, a folder, a symbolic link or another
// name of a file. Symbolic links in the path are followed within the root, also at its end but for the two
// kinds of links; folders that are missing are made.
//
// A regular file that is there gets the content, and keeps all else: owner, mode, time of the last change to content,
// attributes, other names. A folder that is there stays as it is. A link takes the place of a file. Nothing
// else is replaced (ErrTree). content must not read from this Editor.
func (e *Editor) Put(entry source.Entry, content io.Reader) error {
	return e.step(func() error {
		if err := e.put(entry, content); err != nil {
			return fmt.Errorf("%s: %w", entry.Path, err)
		}
		return nil
	})
}

func (e *Editor) put(entry source.Entry, content io.Reader) error {
	if len(elements(entry.Path)) == 0 && entry.Type == source.Folder {
		return nil
	}
	if _, _, err := cut(entry.Path); err != nil {
		return err
	}
	link := entry.Type == source.Symlink || entry.Type == source.HardLink
	at, err := e.resolve(entry.Path, !link, e.makeFolder)
	if err != nil {
		return err
	}
	switch entry.Type {
	case source.Regular:
		return e.putFile(at, entry, content)
	case source.Folder:
		if at.n == nil {
			_, err = e.makeNew(at, entry)
		} else if at.n.kind() != kindFolder {
			err = fmt.Errorf("%w: a file is where a folder is to be", ErrTree)
		}
		return err
	case source.Symlink:
		return e.putSymlink(at, entry)
	case source.HardLink:
		return e.putLink(at, entry)
	}
	return fmt.Errorf("%w: an entry of %v", ErrTree, entry.Type)
}

// makeFolder makes a folder that a path needs and no entry described.
func (e *Editor) makeFolder(folder *record, name string) (*record, error) {
	f, err := e.makeNew(place{folder: folder, name: name}, source.Entry{Type: source.Folder, Mode: 0o755})
	if err != nil {
		return nil, err
	}
	return f.record, nil
}

// makeNew makes a file with a name. Nothing is in it yet.
func (e *Editor) makeNew(at place, entry source.Entry) (*draft, error) {
	mode, err := modeOfType(entry.Type)
	if err != nil {
		return nil, err
	}
	folder, err := e.load(at.folder.number)
	if err != nil {
		return nil, err
	}
	f, err := e.create(folder, entry, mode)
	if err != nil {
		return nil, err
	}
	if entry.Type == source.Folder {
		if err := e.startFolder(folder, f); err != nil {
			return nil, err
		}
	}
	if err := e.save(f); err != nil {
		return nil, err
	}
	return f, e.insert(folder, folderEntry{name: at.name, number: f.number, kind: e.entryKind(kindOfMode(mode))})
}

// startFolder gives a new folder its first block, and counts it in the one above.
func (e *Editor) startFolder(above, f *draft) error {
	switch {
	case above.links < 2 && e.super.FeatureROCompat&roDirNlink != 0: // too many to count
	case above.links+1 < linkMax:
		above.setLinks(above.links + 1)
	case e.super.FeatureROCompat&roDirNlink != 0:
		above.setLinks(1)
	default:
		return fmt.Errorf("%w: more than %d folders in one", ErrTree, linkMax)
	}
	kind := e.entryKind(kindFolder)
	raw := e.form(f.record).leaf([]folderEntry{{name: ".", number: f.number, kind: kind}, {name: "..", number: above.number, kind: kind}})
	return e.fill(f, int64(len(raw)), bytes.NewReader(raw))
}

func (e *Editor) putFile(at place, entry source.Entry, content io.Reader) error {
	if content == nil && entry.Size > 0 {
		return fmt.Errorf("%w: no content for %d bytes", ErrTree, entry.Size)
	}
	var f *draft
	var err error
	if at.n == nil {
		f, err = e.makeNew(at, entry)
	} else if f, err = e.load(at.n.number); err == nil {
		if f.kind() != kindRegular || f.number < e.firstInode() {
			return fmt.Errorf("%w: something else than a regular file is there", ErrTree)
		}
		err = e.empty(f)
	}
	if err != nil {
		return err
	}
	f.setTime(placeChange, e.now)
	if err := e.fill(f, entry.Size, content); err != nil {
		return err
	}
	return e.save(f)
}

// makeRoom removes what a link takes the place of.
func (e *Editor) makeRoom(at place) error {
	if at.n == nil {
		return nil
	}
	if at.n.kind() != kindRegular && at.n.kind() != kindSymlink {
		return fmt.Errorf("%w: something else than a file or a link is there", ErrTree)
	}
	return e.remove(at)
}

func (e *Editor) putSymlink(at place, entry source.Entry) error {
	if entry.Link == "" || len(entry.Link) >= e.blockSize || len(entry.Link) > symlinkMax || bytes.IndexByte([]byte(entry.Link), 0) >= 0 {
		return fmt.Errorf("%w: a symbolic link of %d bytes", ErrTree, len(entry.Link))
	}
	if err := e.makeRoom(at); err != nil {
		return err
	}
	entry.Mode = 0o777
	f, err := e.makeNew(at, entry)
	if err != nil {
		return err
	}
	if len(entry.Link) > fastLinkMax {
		if err := e.fill(f, int64(len(entry.Link)), bytes.NewReader([]byte(entry.Link))); err != nil {
			return err
		}
	} else {
		copy(f.raw[0x28:], entry.Link)
		f.setSize(uint64(len(entry.Link)))
	}
	return e.save(f)
}

func (e *Editor) putLink(at place, entry source.Entry) error {
	to, err := e.resolve(entry.Link, false, nil)
	if err != nil {
		return err
	}
	switch {
	case to.n == nil:
		return fmt.Errorf("%w: a hard link to %s, which is not there", ErrTree, entry.Link)
	case to.n.kind() == kindFolder:
		return fmt.Errorf("%w: a hard link to the folder %s", ErrTree, entry.Link)
	case at.n != nil && at.n.number == to.n.number:
		return nil
	}
	if err := e.makeRoom(at); err != nil {
		return err
	}
	f, err := e.load(to.n.number)
	if err != nil {
		return err
	}
	if f.links >= linkMax {
		return fmt.Errorf("%w: more than %d hard links to %s", ErrTree, linkMax, entry.Link)
	}
	f.setLinks(f.links + 1)
	f.setTime(placeChange, e.now)
	if err := e.save(f); err != nil {
		return err
	}
	folder, err := e.load(at.folder.number)
	if err != nil {
		return err
	}
	return e.insert(folder, folderEntry{name: at.name, number: f.number, kind: e.entryKind(f.kind())})
}

// Remove takes a name away: of a file, a link or a folder with nothing in it. The file itself goes with its last name.
func (e *Editor) Remove(path string) error {
	return e.step(func() error {
		if _, _, err := cut(path); err != nil {
			return err
		}
		at, err := e.existing(path, false)
		if err != nil {
			return err
		}
		if err := e.remove(at); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	})
}

func (e *Editor) remove(at place) error {
	f, err := e.load(at.n.number)
	if err != nil {
		return err
	}
	folder, err := e.load(at.folder.number)
	if err != nil {
		return err
	}
	last := f.links <= 1
	if f.kind() == kindFolder {
		entries, err := e.entries(f.record)
		if err != nil {
			return err
		}
		if len(entries) > 0 || f.number < e.firstInode() {
			return fmt.Errorf("%w: a folder with %d entries", ErrTree, len(entries))
		}
		if folder.links > 2 {
			folder.setLinks(folder.links - 1)
		}
		last = true
	}
	if err := e.erase(folder, at.name); err != nil {
		return err
	}
	if last {
		return e.release(f)
	}
	f.setLinks(f.links - 1)
	f.setTime(placeChange, e.now)
	return e.save(f)
}
