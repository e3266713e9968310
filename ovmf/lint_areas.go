package ovmf

const (
	hashesTable = 176 // bytes of the kernel-hashes table, padded (QEMU target/i386/sev.c, PaddedSevHashTable)
	secretAlign = 16  // of a secret's address and size (AMD SEV API, LAUNCH_SECRET)
)

// lintAreas checks the tables at the image's end.
func (r *LintReport) lintAreas(img *Image, o LintOptions) {
	if eip, ok := img.ResetEIP(); !ok || eip == 0 {
		r.add("reset-vector", Unfit, "no address at which a second vCPU starts")
	}
	secret, hasSecret := img.SecretArea()
	switch {
	case !hasSecret:
		r.add("secret-area", Unfit, "no launch-secret area")
	case int64(secret.Size) < int64(o.SecretTableSize):
		r.add("secret-area", Unfit, "launch-secret area of %d bytes, and the secret table has %d", secret.Size, o.SecretTableSize)
	case secret.Base%secretAlign != 0:
		r.add("secret-area", Unfit, "launch-secret area at %#x, no multiple of %d", secret.Base, secretAlign)
	}
	hashes, hasHashes := img.HashesArea()
	switch {
	case !hasHashes && o.KernelHashes:
		r.add("hashes-area", Unfit, "no kernel-hashes area")
	case hasHashes && hashes.Size < hashesTable:
		r.add("hashes-area", Unfit, "kernel-hashes area of %d bytes, and the table has %d", hashes.Size, hashesTable)
	}
	image := span{"the image", img.Base(), fourGiB}
	var areas []span
	if hasSecret {
		areas = append(areas, spanOf("launch-secret area", secret.Base, secret.Size))
	}
	if hasHashes {
		areas = append(areas, spanOf("kernel-hashes area", hashes.Base, hashes.Size))
	}
	r.lintOverlaps(append([]span{image}, areas...))
	r.lintMetadata(img, image, areas)
}

// lintMetadata checks what SEV-SNP needs.
func (r *LintReport) lintMetadata(img *Image, image span, areas []span) {
	if len(img.Metadata()) == 0 {
		r.add("snp-metadata", Warning, "no SEV metadata: the firmware starts under SEV and SEV-ES alone")
		return
	}
	count := map[SectionType]int{}
	spans := []span{image}
	for _, s := range img.Metadata() { // Parse saw to whole pages below 4 GiB
		count[s.Type]++
		section := spanOf(s.Type.String()+" section", s.GPA, s.Size)
		spans = append(spans, section)
		switch s.Type {
		case SecMem, SVSMCAA:
			if s.Size == 0 {
				r.add("snp-metadata", Unfit, "%v section of no bytes", s.Type)
			}
		case Secrets, CPUID:
			if s.Size != PageSize {
				r.add("snp-metadata", Unfit, "%v section of %d bytes, not one page", s.Type, s.Size)
			}
		case KernelHashes:
			hashes, ok := img.HashesArea()
			if !ok || !section.holds(spanOf("", hashes.Base, hashes.Size)) {
				r.add("snp-metadata", Unfit, "kernel-hashes section at %#x does not hold the kernel-hashes area", s.GPA)
			}
			continue // the launch-secret area may share its page: SEV-SNP has no launch secret
		default:
			r.add("snp-metadata", Warning, "section of unknown %v at %#x", s.Type, s.GPA)
		}
		for _, a := range areas {
			if section.meets(a) {
				r.add("area-overlap", Unfit, "%v section at %#x overlaps the %s", s.Type, s.GPA, a.name)
			}
		}
	}
	for _, need := range []SectionType{SecMem, Secrets, CPUID} {
		if n := count[need]; n == 0 {
			r.add("snp-metadata", Unfit, "no %v section", need)
		} else if n > 1 && need != SecMem {
			r.add("snp-metadata", Unfit, "%d %v sections", n, need)
		}
	}
	if _, ok := img.HashesArea(); ok && count[KernelHashes] != 1 {
		r.add("snp-metadata", Unfit, "%d kernel-hashes sections for the kernel-hashes area", count[KernelHashes])
	}
	r.lintOverlaps(spans)
}

// span is a part of guest memory, end not in it.
type span struct {
	name       string
	start, end uint64
}

func spanOf(name string, base, size uint32) span {
	return span{name, uint64(base), uint64(base) + uint64(size)}
}

func (s span) meets(t span) bool { return s.start < t.end && t.start < s.end }
func (s span) holds(t span) bool { return s.start <= t.start && t.end <= s.end }

func (r *LintReport) lintOverlaps(spans []span) {
	const most = 8 // findings: a hostile table has thousands
	n := 0
	for i, a := range spans {
		for _, b := range spans[:i] {
			if a.meets(b) && n < most {
				r.add("area-overlap", Unfit, "%s at %#x overlaps %s at %#x", a.name, a.start, b.name, b.start)
				n++
			}
		}
	}
}
