// Package release is what is shipped: a manifest, and the bytes behind it.
//
// A [Release] is opened from a directory, from a packed file, or from a tar,
// and looks the same afterwards: a [Manifest] that says everything but the
// bytes, and a way to read the bytes of each file. The package reads releases
// and writes packed ones to an [io.Writer]; it changes no file system, except
// that a tar is unpacked through a [disk.FS] that the caller hands in.
//
// The rules of this room:
//
//   - What comes in is hostile until it has been checked. A manifest, a packed
//     file and a tar are refused whole, with the line or the member named, if
//     anything in them escapes the release, is there twice, lacks its parent or
//     is not what it says; and reading them takes memory in proportion to their
//     own size, whatever sizes they claim.
//   - No symbolic link is followed in a source directory.
//   - The same manifest is the same bytes ([Manifest.Encode]), so that its
//     digest ([Manifest.ID]) names the release on every host.
//
// # The manifest
//
// A manifest is text, one line an entry, fields separated by one space:
//
//	moult-manifest 1
//	name tool
//	version 2.1
//	entries 4
//	d 0755 - - - - - - bin
//	f 0755 root root 31 3b0c… 1730000000000000000 keep,x.user.origin=build\x207 bin/tool
//	d 0755 - - - - - - lib
//	l - - - - - - text=libx.so.1.2 lib/libx.so
//
// The first line has the number of the format; a reader refuses a higher one
// ([ErrNewer]). Then come, each at most once and in this order: name, version,
// times (without a value), before, after and timeout (the hooks), restart (the
// rules of [RestartRule], as JSON without blanks), and entries, which must be
// there.
//
// The fields of an entry are its type (f, d, l), mode in octal, owner, group,
// size, SHA-256, modification time in nanoseconds, attributes, and path. A
// field that does not apply or is not known is "-". The attributes, separated
// by commas, are in this order: sparse, keep, text= (of a symbolic link), link=
// (the path of the first hard link to the same file), and x.NAME=VALUE for each
// extended attribute, sorted by name.
//
// Control characters, DEL, C1, backslashes and bytes that are not UTF-8 are
// written as \xNN (a backslash itself as \\, a newline as \n); in all fields but
// the last also space, comma and "=". There is one way to write each manifest,
// and no other is read.
//
// Entries are sorted by path, byte by byte. A path is longer than its parent's
// and begins with it, so parents stand before children; but other names can
// stand between them: "a", "a-b", "a/c".
package release
