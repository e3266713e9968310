// Command sealboot-agent is the first program of the guest's initramfs (rdinit=/sealboot/agent).
package main

import (
	"os"

	"github.com/sealboot/sealboot/agent"
)

func main() {
	agent.Main(os.Args[1:], os.Environ())
}
