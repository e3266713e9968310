package xts

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkBesideOpenSSL measures every path and `openssl speed` in one run, both by the processor time that
// they take, on units of 4096 bytes with a tweak each.
func BenchmarkBesideOpenSSL(b *testing.B) {
	const unit, seconds = 4096, 2
	b.Run("openssl", func(b *testing.B) {
		openssl, err := exec.LookPath("openssl")
		if err != nil {
			b.Skip(err)
		}
		for b.Loop() {
			out, err := exec.Command(openssl, "speed", "-seconds", strconv.Itoa(seconds), "-bytes", strconv.Itoa(unit), "-evp", "aes-256-xts").Output()
			if err != nil {
				b.Fatal(err)
			}
			words := strings.Fields(string(out))
			rate, err := strconv.ParseFloat(strings.TrimSuffix(words[len(words)-1], "k"), 64)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(rate/1e3, "MB/cpu-s")
		}
	})
	key, data := make([]byte, 64), make([]byte, 16*unit)
	key[0] = 1
	eachPath(b, key, func(b *testing.B, c *Cipher) {
		before := processorTime(b)
		for b.Loop() {
			c.Encrypt(data, data, 0, unit, unit/512)
		}
		b.ReportMetric(float64(b.N)*float64(len(data))/1e6/(processorTime(b)-before).Seconds(), "MB/cpu-s")
	})
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
