package sealboot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// made are the files that `sealboot build` puts into its folder.
var made = []string{"disk.qcow2", "firmware.fd", "record.json", "passphrase"}

// folder is an output folder that this run made itself, so that all of it may go if the run fails.
type folder struct {
	path string
	old  string // where the folder that it replaces stands meanwhile; empty if there is none
}

// newFolder makes the folder. One that is there is put aside if it may be replaced and holds nothing but what sealboot makes.
func newFolder(path string, replace bool) (*folder, error) {
	f := &folder{path: filepath.Clean(path)}
	err := os.Mkdir(f.path, 0o755)
	if errors.Is(err, os.ErrExist) && replace {
		if err = f.putAside(); err == nil {
			if err = os.Mkdir(f.path, 0o755); err != nil {
				err = errors.Join(err, os.Rename(f.old, f.path))
			}
		}
	} else if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("output_directory %s is already there: choose another, or have it replaced by packer build -force if nobody needs that disk any more", f.path)
	}
	if err != nil {
		return nil, fmt.Errorf("make output_directory: %w", err)
	}
	return f, nil
}

func (f *folder) putAside() error {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(made, e.Name()) {
			return fmt.Errorf("%s is not replaced, since it holds %s, which sealboot did not make: choose another folder", f.path, e.Name())
		}
	}
	old := f.path + ".old"
	if _, err := os.Lstat(old); err == nil {
		return fmt.Errorf("%s is there, from a run that was cut short: it has the passphrase of an earlier disk; remove it or put it back", old)
	}
	if err := os.Rename(f.path, old); err != nil {
		return err
	}
	f.old = old
	return nil
}

// discard removes the folder and puts back the one that it was to replace.
func (f *folder) discard() error {
	err := os.RemoveAll(f.path)
	if err == nil && f.old != "" {
		err = os.Rename(f.old, f.path)
	}
	if err != nil {
		return fmt.Errorf("tidy up output_directory: %w", err)
	}
	return nil
}

// keep ends a run that went well.
func (f *folder) keep() error {
	if f.old == "" {
		return nil
	}
	if err := os.RemoveAll(f.old); err != nil {
		return fmt.Errorf("remove the folder that was replaced: %w", err)
	}
	return nil
}
