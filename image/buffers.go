package image

import "golang.org/x/sys/unix"

// buffers gives memory for n chunks, and a function that gives it back. Linux takes large pages where it can: they take it less time
// when they are first touched, and with O_DIRECT the disk gets a chunk as one range of memory instead of 256.
func buffers(n int) (list [][]byte, free func()) {
	memory, err := unix.Mmap(-1, 0, n*chunkSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		memory, free = make([]byte, n*chunkSize), func() {}
	} else {
		_ = unix.Madvise(memory, unix.MADV_HUGEPAGE) // a kernel without them says so
		free = func() { _ = unix.Munmap(memory) }
	}
	for at := (n - 1) * chunkSize; at >= 0; at -= chunkSize { // the last one is taken first
		list = append(list, memory[at:][:chunkSize:chunkSize])
	}
	return list, free
}
