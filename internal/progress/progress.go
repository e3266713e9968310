// Package progress tells a person how far long work has come: one line, redrawn, on a
// terminal; nothing where there is none.
package progress

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// Func takes how much of a stage is done, and how much there is in all (0: not known).
// It must be cheap and may be called from one goroutine at a time.
type Func func(done, total int64)

// Line draws stages on a terminal.
type Line struct {
	out   io.Writer // nil: no terminal
	width int
	now   func() time.Time
}

// New draws on w if w is a terminal.
func New(w io.Writer) *Line {
	l := &Line{now: time.Now}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		l.out = w
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			l.width = width
		}
	}
	return l
}

// Stage begins a stage measured in bytes and gives the function to report to.
func (l *Line) Stage(name string) Func {
	if l.out == nil {
		return func(int64, int64) {}
	}
	begun := l.now()
	var drawn time.Time
	return func(done, total int64) {
		now := l.now()
		if now.Sub(drawn) < 100*time.Millisecond && done != total {
			return
		}
		drawn = now
		l.draw(describe(name, done, total, now.Sub(begun)))
	}
}

// Clear removes the line, before anything else is printed.
func (l *Line) Clear() {
	if l.out != nil {
		fmt.Fprint(l.out, "\r\x1b[K")
	}
}

func (l *Line) draw(text string) {
	if l.width > 1 && len(text) > l.width-1 {
		text = text[:l.width-1]
	}
	fmt.Fprint(l.out, "\r"+text+"\x1b[K")
}

func describe(name string, done, total int64, spent time.Duration) string {
	text := fmt.Sprintf("%s  %s", name, Bytes(done))
	rate := float64(done) / max(spent.Seconds(), 0.001)
	if total > 0 {
		text += fmt.Sprintf(" of %s (%d%%)", Bytes(total), done*100/total)
	}
	text += fmt.Sprintf("  %s/s", Bytes(int64(rate)))
	if total > done && rate > 0 && spent > time.Second {
		text += fmt.Sprintf("  %s left", time.Duration(float64(total-done)/rate*float64(time.Second)).Round(time.Second))
	}
	return text
}

// Bytes writes a size for people, in units of 1024.
func Bytes(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
