//go:build !amd64

package doctor

func abiProbes() []probe { return nil }
