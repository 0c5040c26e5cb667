package reexec

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
)

// parentVariable tells a process who has relaunched it: the other's process
// number, a handle of it, and one of the event that says "launched".
const parentVariable = "MOULT_PARENT"

const relaunchWait = time.Minute

func relaunch(o RelaunchOptions) error {
	path, err := programFile()
	if err != nil {
		return fmt.Errorf("relaunch this program: %w", err)
	}
	if err := startAndWait(path, o); err != nil {
		err = fmt.Errorf("relaunch %s: %w", path, err)
		if undone := undoReplace(); undone != nil {
			err = fmt.Errorf("%w; undo the replacement: %w", err, undone)
		}
		return err
	}
	last.Lock()
	defer last.Unlock()
	last.path, last.old = "", ""
	return nil
}

// startAndWait starts the program and waits until it has launched.
func startAndWait(path string, o RelaunchOptions) error {
	event, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return fmt.Errorf("create an event: %w", err)
	}
	defer windows.CloseHandle(event)
	theirs, err := duplicate(event, 0)
	if err != nil {
		return fmt.Errorf("create an event: %w", err)
	}
	defer windows.CloseHandle(theirs)
	me, err := duplicate(windows.CurrentProcess(), windows.SYNCHRONIZE|windows.PROCESS_QUERY_LIMITED_INFORMATION)
	if err != nil {
		return fmt.Errorf("open this process: %w", err)
	}
	defer windows.CloseHandle(me)

	cmd := exec.Command(path, o.args()...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d,%d,%d", parentVariable, os.Getpid(), me, theirs))
	cmd.SysProcAttr = &syscall.SysProcAttr{AdditionalInheritedHandles: []syscall.Handle{syscall.Handle(me), syscall.Handle(theirs)}}
	in, out, errs := standard(windows.STD_INPUT_HANDLE), standard(windows.STD_OUTPUT_HANDLE), standard(windows.STD_ERROR_HANDLE)
	if in != nil {
		cmd.Stdin = in
		defer in.Close()
	}
	if out != nil {
		cmd.Stdout = out
		defer out.Close()
	}
	if errs != nil {
		cmd.Stderr = errs
		defer errs.Close()
	}
	// A virus scanner may have the new file open.
	if err := patiently(cmd.Start); err != nil {
		return err
	}
	if err := awaitLaunch(event, cmd.Process, o.ReadyTimeout); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return err
	}
	return cmd.Process.Release()
}

// awaitLaunch waits for the event, and no longer than the process lives.
func awaitLaunch(event windows.Handle, p *os.Process, limit time.Duration) error {
	if limit == 0 {
		limit = relaunchWait
	}
	process, err := windows.OpenProcess(windows.SYNCHRONIZE, false, uint32(p.Pid))
	if err != nil {
		return fmt.Errorf("open the new process: %w", err)
	}
	defer windows.CloseHandle(process)
	which, err := windows.WaitForMultipleObjects([]windows.Handle{event, process}, false, uint32(limit.Milliseconds()))
	switch {
	case err != nil:
		return fmt.Errorf("wait for the new process: %w", err)
	case which == windows.WAIT_OBJECT_0:
		return nil
	case which == windows.WAIT_OBJECT_0+1:
		return errors.New("the new program ended before it had launched")
	}
	return fmt.Errorf("the new program had not launched after %v", limit)
}

// undoReplace gives the program's name back to the file that this process was
// started from, if this process has replaced it.
func undoReplace() error {
	last.Lock()
	defer last.Unlock()
	if last.path == "" {
		return nil
	}
	failed := last.path + "." + strconv.Itoa(os.Getpid()) + newSuffix
	if err := swap(last.old, last.path, failed); err != nil {
		return err
	}
	last.path, last.old = "", ""
	patiently(func() error { return remove(failed) }) // else it is swept later
	return nil
}

// standard is a file for a standard stream of this process; nil if it has none.
func standard(which uint32) *os.File {
	h, err := windows.GetStdHandle(which)
	if err != nil || h == 0 || h == windows.InvalidHandle {
		return nil
	}
	if h, err = duplicate(h, 0); err != nil {
		return nil
	}
	return os.NewFile(uintptr(h), "standard stream")
}

// duplicate makes a second handle, which a child can inherit, with the access
// that is given, or with that of the first.
func duplicate(h windows.Handle, access uint32) (windows.Handle, error) {
	var options uint32
	if access == 0 {
		options = windows.DUPLICATE_SAME_ACCESS
	}
	var second windows.Handle
	err := windows.DuplicateHandle(windows.CurrentProcess(), h, windows.CurrentProcess(), &second, access, true, options)
	return second, err
}

var launched = sync.OnceValue(func() <-chan struct{} {
	done := make(chan struct{})
	parent := greetParent()
	go func() {
		defer close(done)
		if parent != 0 {
			windows.WaitForSingleObject(parent, windows.INFINITE)
			windows.CloseHandle(parent)
		}
		path, err := programFile()
		if err != nil {
			return
		}
		// The image of a process that has ended can stay in use for a moment.
		end := time.Now().Add(sharingWait)
		for pause := 10 * time.Millisecond; sweep(path) && time.Now().Before(end); pause *= 2 {
			time.Sleep(pause)
		}
	}()
	return done
})

// greetParent tells the process that has relaunched this one that it lives, and
// returns a handle of it; 0 if there is none.
func greetParent() windows.Handle {
	text, ok := os.LookupEnv(parentVariable)
	os.Unsetenv(parentVariable)
	var pid uint32
	var parent, event windows.Handle
	if n, err := fmt.Sscanf(text, "%d,%d,%d", &pid, &parent, &event); !ok || n != 3 || err != nil {
		return 0
	}
	// A variable that came from further up speaks of handles that are not ours.
	if got, err := windows.GetProcessId(parent); err != nil || got != pid || int(pid) != os.Getppid() {
		return 0
	}
	windows.SetHandleInformation(parent, windows.HANDLE_FLAG_INHERIT, 0)
	windows.SetEvent(event)
	windows.CloseHandle(event)
	return parent
}
