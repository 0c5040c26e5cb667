// Package reexec makes a program replace itself without losing a request.
//
// The program notices that its executable or one of its libraries was replaced,
// tries whether the new one starts, brings its work to rest and executes the new
// one in the same process: same PID, same listening sockets, same idle
// connections. What cannot run is not executed, or taken back; the old code goes
// on in the same process.
//
//	func main() {
//		opts := reexec.Options{OnEvent: func(e reexec.Event) { log.Print(e) }}
//		p, err := reexec.Start(opts)            // first of all
//		if err != nil {
//			log.Fatal(err)
//		}
//		defer p.Guard()                         // a panic before Ready: back to the old code
//		ln, err := p.Listen("tcp", ":8080")     // inherited, or new
//		if err != nil {
//			log.Fatal(p.Fail(err))          // back to the old code, if there is one
//		}
//		srv := &http.Server{Handler: mux}
//		go reexechttp.Serve(p, srv, ln)
//		p.Ready()
//		log.Print(p.Run(ctx))                   // watches, and replaces the program
//	}
//
// The rule of this room: whatever an upgrade touches before execve(2) (limits,
// descriptor flags, signal actions, timers, the working directory, listeners) is
// as it was if the upgrade does not happen. Nothing here prints, and the process
// ends in two cases alone: it was started to answer a preflight, or a rollback
// has replaced it.
//
// It works on Linux. Elsewhere it compiles, listeners are plain ones, and an
// upgrade is ErrUnsupported. The bytes that pass from the old code to the new are
// described in docs/reexec-protocol.md.
package reexec
