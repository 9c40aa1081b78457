// Package dispatch receives calls, has them decided and carried out, and
// answers them. It is the only place that answers, that turns an error into an
// errno, that writes the log line and that counts.
//
// A few reactors, each an OS thread with an epoll of its own, receive. The
// thread that receives a call carries it out and answers, which with
// SYNC_WAKE_UP costs an eighth of handing it to another. What could block
// says so (emulators.ErrBlocks) before it has done anything and runs on a
// worker, of which each container has a bounded number. Should a reactor be
// stuck all the same, the watchdog gives its listeners to a new one.
//
// Lock order: Dispatcher.mu, then container.mu; a worker holds neither while a
// call runs.
package dispatch
