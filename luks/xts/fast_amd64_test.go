package xts

type fastPath struct {
	name   string
	choose func() (restore func())
}

// fastPaths lists the assembly that this processor can run.
func fastPaths() []fastPath {
	var paths []fastPath
	if hasAESNI {
		paths = append(paths, fastPath{"aes-ni", func() func() {
			was := hasVAES
			hasVAES = false
			return func() { hasVAES = was }
		}})
	}
	if hasVAES {
		paths = append(paths, fastPath{"vaes", func() func() { return func() {} }})
	}
	return paths
}
