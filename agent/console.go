package agent

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	serial  = "/dev/ttyS0"
	maxLine = 400 // characters of a reason
)

// say prints a line on the console, which is descriptor 2 from the kernel, and on the serial
// port if the console is elsewhere.
func say(text string) {
	line := []byte("sealboot: " + printable(text) + "\r\n")
	os.Stderr.Write(line)
	active, _ := os.ReadFile("/sys/class/tty/console/active")
	if strings.HasSuffix(strings.TrimSpace(string(active)), "ttyS0") {
		return // the last one listed is /dev/console
	}
	if f, err := os.OpenFile(serial, os.O_WRONLY|unix.O_NOCTTY, 0); err == nil {
		f.Write(line)
		f.Close()
	}
}

// printable makes one line of plain characters: parts of a reason come from a disk that the host wrote.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case b.Len() >= maxLine:
			return b.String() + "..."
		case r == '\n':
			b.WriteString("; ")
		case r < ' ' || r > '~':
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// stop says why, once, and powers the machine off.
func stop(why error) {
	unix.Klogctl(6, nil) // SYSLOG_ACTION_CONSOLE_OFF, syslog(2): the kernel's messages must not cut the line
	say("stopped: " + why.Error())
	unix.IoctlSetInt(2, unix.TCSBRK, 1) // tcdrain(3)
	unix.Sync()
	for {
		unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		time.Sleep(time.Second) // a machine that cannot power off halts, at least
		unix.Reboot(unix.LINUX_REBOOT_CMD_HALT)
		time.Sleep(time.Second)
	}
}
