//go:build linux

package chaos

import (
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// launcher starts processes, from one thread that lives as long as this process: the kernel kills them when the thread that
// started them ends, and so they end with this process even when it is killed. The same thread visits the network
// namespaces that some are started in.
type launcher struct{ jobs chan func() }

var launch = sync.OnceValue(func() *launcher {
	l := &launcher{jobs: make(chan func())}
	go func() {
		runtime.LockOSThread() // forever
		for job := range l.jobs {
			job()
		}
	}()
	return l
})

// do runs a function on the launcher's thread.
func (l *launcher) do(f func() error) (err error) {
	done := make(chan struct{})
	l.jobs <- func() {
		defer close(done)
		err = f()
	}
	<-done
	return err
}

// start starts a command that is killed when this process ends, in a network namespace or, with nil, in this process's.
func (l *launcher) start(command *exec.Cmd, namespace *os.File) error {
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return l.do(func() error {
		if namespace == nil {
			return command.Start()
		}
		return visit(namespace, command.Start)
	})
}

// visit runs a function with the thread in another network namespace. It is for the launcher's thread.
func visit(namespace *os.File, f func() error) error {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(back) // nothing that this thread starts would be where it should
	}
	return err
}

// newNamespace makes a network namespace. It lives as long as the file is open, or a process is in it.
func (l *launcher) newNamespace() (namespace *os.File, err error) {
	err = l.do(func() error {
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		defer home.Close()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		namespace, err = os.Open("/proc/thread-self/ns/net")
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			panic(back)
		}
		return err
	})
	return namespace, err
}
