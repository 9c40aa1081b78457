package seccompnotify

// Data is struct seccomp_data: the call as the filter saw it.
type Data struct {
	NR   int32  // system call number; on x86_64 an x32 call has bit 30 set
	Arch uint32 // AUDIT_ARCH_*
	// InstructionPointer is where the caller stands.
	InstructionPointer uint64
	// Args are the registers. Of an argument that the kernel takes as an int
	// only the low 32 bits mean anything: the rest is the caller's to choose.
	Args [6]uint64
}

// Notification is struct seccomp_notif.
type Notification struct {
	ID uint64
	// PID is the caller's *thread* id in the pid namespace of the receiver; 0
	// if it has none there.
	PID   uint32
	Flags uint32
	Data  Data
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	errno int32 // negative
	flags uint32
}

// addfd is struct seccomp_notif_addfd.
type addfd struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}

// Sizes is struct seccomp_notif_sizes: what the running kernel copies, in
// bytes.
type Sizes struct {
	Notification uint16
	Response     uint16
	Data         uint16
}

// AddFDFlags are the flags of SECCOMP_IOCTL_NOTIF_ADDFD.
type AddFDFlags uint32

const (
	// AddFDSet puts the descriptor at the number asked for, closing what is
	// there (SECCOMP_ADDFD_FLAG_SETFD).
	AddFDSet AddFDFlags = 1 << 0
	// AddFDSend answers the call with the new number in the same step
	// (SECCOMP_ADDFD_FLAG_SEND, Linux 5.14).
	AddFDSend AddFDFlags = 1 << 1
)

// SyncWakeUp (SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6) tells the
// scheduler that the supervisor is about to sleep when it answers, and the
// caller when it asks: both may share a CPU, which makes a round trip some
// eight times cheaper.
const SyncWakeUp uint64 = 1 << 0

// flagContinue is SECCOMP_USER_NOTIF_FLAG_CONTINUE (Linux 5.5).
const flagContinue = 1 << 0
