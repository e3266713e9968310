package snp

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sealboot/sealboot/internal/atomicfile"
)

// Folder is a Keeper: a file for each answer, dated by when it was fetched. When there are too many, the oldest go. Servers may share one.
type Folder struct {
	path string
	most int

	mu sync.Mutex
}

// folderEnding tells the cache's files from others', which are left alone.
const folderEnding = ".kds"

// NewFolder uses a folder that is there, for at most so many answers.
func NewFolder(path string, most int) (*Folder, error) {
	if most < 1 {
		return nil, fmt.Errorf("keep certificates: %d of them", most)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("keep certificates: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("keep certificates: %s is no folder", path)
	}
	return &Folder{path: path, most: most}, nil
}

// file names an answer's file: nothing of what was asked for reaches the file system.
func (f *Folder) file(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(f.path, hex.EncodeToString(sum[:])+folderEnding)
}

// Load reads an answer.
func (f *Folder) Load(name string) ([]byte, time.Time, error) {
	file, err := os.Open(f.file(name))
	if err != nil {
		return nil, time.Time{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxAnswer {
		return nil, time.Time{}, fmt.Errorf("%s is no answer", file.Name())
	}
	data := make([]byte, info.Size())
	if _, err := file.ReadAt(data, 0); err != nil {
		return nil, time.Time{}, err
	}
	return data, info.ModTime(), nil
}

// Save writes an answer, whole or not at all.
func (f *Folder) Save(name string, data []byte, fetched time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	file := f.file(name)
	if err := atomicfile.WriteFile(file, data, 0o644); err != nil {
		return fmt.Errorf("keep certificate: %w", err)
	}
	if err := os.Chtimes(file, fetched, fetched); err != nil {
		return fmt.Errorf("keep certificate: %w", err)
	}
	return f.tidy()
}

func (f *Folder) tidy() error {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return fmt.Errorf("keep certificates: %w", err)
	}
	type old struct {
		name string
		time time.Time
	}
	var ours []old
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && strings.HasSuffix(e.Name(), folderEnding) {
			ours = append(ours, old{e.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(ours, func(a, b old) int { return a.time.Compare(b.time) })
	for _, o := range ours[:max(0, len(ours)-f.most)] {
		if err := os.Remove(filepath.Join(f.path, o.name)); err != nil {
			return fmt.Errorf("keep certificates: %w", err)
		}
	}
	return nil
}
