package filter

import (
	"fmt"

	libseccomp "github.com/seccomp/libseccomp-golang"
)

// Version is that of the libseccomp in use, such as "2.5.4".
func Version() string {
	major, minor, micro := libseccomp.GetLibraryVersion()
	return fmt.Sprintf("%d.%d.%d", major, minor, micro)
}
