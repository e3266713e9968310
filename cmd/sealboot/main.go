// Command sealboot builds encrypted disks and measured firmware, serves their keys, and
// starts the machines that may have them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A signal a second after the first ends what the first could not, as a read of standard input. Not at
	// once: timeout(1) and terminals often send two, and the first one's tidying up must not be cut short.
	context.AfterFunc(ctx, func() {
		time.Sleep(time.Second)
		stop()
	})
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
