// Command sealboot builds encrypted disks and measured firmware, and starts the machines that may have the
// disks' keys. The server that gives them out is sealboot-keyserver.
package main

import "github.com/sealboot/sealboot/internal/cli"

func main() { cli.Main(run, "measure") }
