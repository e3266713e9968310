// packer-plugin-sealboot lets Packer make an encrypted disk of the image that it has just built: see README.md.
package main

import (
	"fmt"
	"log"
	"os"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/plugin"
	"github.com/hashicorp/packer-plugin-sdk/version"

	"github.com/sealboot/sealboot/packer/sealboot"
)

// pluginVersion is what required_plugins is compared with.
const pluginVersion = "0.1.0"

func main() {
	packersdk.LogSecretFilter.SetOutput(os.Stderr)
	log.SetOutput(&packersdk.LogSecretFilter)
	set := plugin.NewSet()
	set.SetVersion(version.NewPluginVersion(pluginVersion, "", ""))
	set.RegisterPostProcessor(plugin.DEFAULT_NAME, new(sealboot.PostProcessor))
	if err := set.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "packer-plugin-sealboot:", err)
		os.Exit(1)
	}
}
