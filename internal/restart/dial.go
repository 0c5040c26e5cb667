package restart

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// busLimit is how long a bus may take to let us in, or to answer one call.
const busLimit = 10 * time.Second

// dialBus connects to a message bus as the user uid and introduces us. An
// address is as the D-Bus specification has it; of its transports those are
// known that name a socket of this host.
func dialBus(ctx context.Context, address string, uid int) (*dbus.Conn, error) {
	var last error = errors.New("it has no address of a socket of this host")
	for one := range strings.SplitSeq(address, ";") {
		name, err := socketName(one)
		if err != nil {
			last = err
			continue
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		conn, err := connect(name, uid)
		if err != nil {
			last = err
			continue
		}
		return introduce(ctx, conn, uid)
	}
	return nil, fmt.Errorf("bus %s: %w", address, last)
}

// socketName is what connect(2) takes: "unix:path=/run/dbus/system_bus_socket".
func socketName(address string) (string, error) {
	transport, keys, _ := strings.Cut(address, ":")
	if transport == "unix" {
		for pair := range strings.SplitSeq(keys, ",") {
			key, value, _ := strings.Cut(pair, "=")
			value, err := url.PathUnescape(value)
			switch {
			case err != nil:
				return "", err
			case key == "path":
				return value, nil
			case key == "abstract":
				return "@" + value, nil
			}
		}
	}
	return "", fmt.Errorf("%q: its transport is not known", address)
}

// connect connects a socket. The bus of a user lets in nobody else, not even
// root, and goes by the effective user at the time of connect(2) (unix(7),
// SO_PEERCRED). So one thread becomes that user for the time of the call.
func connect(name string, uid int) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		if uid == os.Geteuid() {
			conn, err := connectSocket(name)
			done <- result{conn, err}
			return
		}
		// A goroutine that ends with its thread locked takes the thread with it,
		// so none is left that is somebody else.
		runtime.LockOSThread()
		if err := becomeUser(uid); err != nil {
			done <- result{nil, fmt.Errorf("become user %d: %w", uid, err)}
			return
		}
		conn, err := connectSocket(name)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// becomeUser changes the effective user of this thread alone.
func becomeUser(uid int) error {
	const keep = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		return errno
	}
	return nil
}

// connectSocket is net.Dial in the calling thread.
func connectSocket(name string) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // net.FileConn has its own
	// A stream socket of the host connects at once or not at all: EAGAIN says
	// that the bus does not accept (unix(7)).
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return nil, &os.PathError{Op: "connect", Path: name, Err: err}
	}
	return net.FileConn(f)
}

// introduce does what has to be said before the first call.
func introduce(ctx context.Context, socket net.Conn, uid int) (*dbus.Conn, error) {
	conn, err := dbus.NewConn(socket)
	if err != nil {
		socket.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { socket.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := socket.SetDeadline(time.Now().Add(busLimit)); err != nil {
		conn.Close()
		return nil, err
	}
	err = conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(uid))})
	if err == nil {
		err = conn.Hello()
	}
	if err == nil && stop() {
		err = socket.SetDeadline(time.Time{})
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("log in to the bus: %w", err)
	}
	return conn, nil
}
