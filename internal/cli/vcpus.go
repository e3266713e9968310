package cli

import (
	"slices"
	"strconv"
	"strings"
)

// maxVCPUs bounds the numbers in --vcpus.
const maxVCPUs = 4096

// ParseVCPUs reads numbers and ranges between commas, and gives them in order, each once.
func ParseVCPUs(text string) ([]int, error) {
	var list []int
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, err := strconv.ParseUint(low, 10, 16)
		to, err2 := strconv.ParseUint(high, 10, 16)
		if err != nil || err2 != nil || from < 1 || from > to || to > maxVCPUs {
			return nil, Usagef("--vcpus %q: numbers from 1 to %d, and ranges of them", text, maxVCPUs)
		}
		for n := from; n <= to && len(list) <= maxVCPUs; n++ {
			list = append(list, int(n))
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
