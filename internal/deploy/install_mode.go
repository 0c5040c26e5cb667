package deploy

import "strings"

// installMode is a mode as -m has it: octal, or symbolic as in chmod(1).
type installMode []modeChange

// modeChange is one operation of a mode: u+rwx is one, u=r,g-w are two.
type modeChange struct {
	op    byte   // = + -
	who   uint32 // bits that may change; 0 is all, as no letter before the operation
	perm  uint32 // bits to set
	named uint32 // bits that were said, which a directory's set-id bits must be to change
	from  bool   // perm says whose bits to copy (u=g)
	xIfX  bool   // X: execute, if somebody may already or it is a directory
}

const (
	modeAll     = 0o7777
	modeSetID   = 0o6000
	modeSpecial = 0o7000
)

// parseInstallMode compiles the text; "" is 0755 with all bits said.
func parseInstallMode(text string) (installMode, bool) {
	if text == "" {
		return installMode{{op: '=', who: modeAll, perm: 0o755, named: modeAll}}, true
	}
	if isOctal(text[0]) {
		perm, rest, ok := cutOctal(text)
		if !ok || rest != "" {
			return nil, false
		}
		// With fewer than five digits, a directory's set-id bits stay unless
		// they are among those to be set.
		named := perm&modeSpecial | 0o777
		if len(text) >= 5 {
			named = modeAll
		}
		return installMode{{op: '=', who: modeAll, perm: perm, named: named}}, true
	}
	var m installMode
	for clause := range strings.SplitSeq(text, ",") {
		changes, ok := parseClause(clause)
		if !ok {
			return nil, false
		}
		m = append(m, changes...)
	}
	return m, true
}

func isOctal(c byte) bool { return '0' <= c && c <= '7' }

// cutOctal reads the octal digits at the start of the text.
func cutOctal(text string) (perm uint32, rest string, ok bool) {
	i := 0
	for ; i < len(text) && isOctal(text[i]); i++ {
		if perm = perm*8 + uint32(text[i]-'0'); perm > modeAll {
			return 0, "", false
		}
	}
	return perm, text[i:], i > 0
}

var modeWho = map[byte]uint32{'u': 0o4700, 'g': 0o2070, 'o': 0o1007, 'a': modeAll}

// parseClause reads what stands between two commas: [ugoa]*([-+=]PERMS)+
func parseClause(text string) (installMode, bool) {
	var who uint32
	for text != "" && modeWho[text[0]] != 0 {
		who |= modeWho[text[0]]
		text = text[1:]
	}
	if text == "" {
		return nil, false
	}
	var m installMode
	for text != "" {
		c := modeChange{op: text[0], who: who}
		if !strings.ContainsRune("=+-", rune(c.op)) {
			return nil, false
		}
		if text = text[1:]; text != "" && isOctal(text[0]) {
			var ok bool
			if c.perm, text, ok = cutOctal(text); !ok || who != 0 || text != "" {
				return nil, false
			}
			c.who, c.named = modeAll, modeAll
			return append(m, c), true
		}
		text = c.letters(text)
		if c.named = c.perm; who != 0 {
			c.named &= who
		}
		m = append(m, c)
	}
	return m, true
}

// letters takes the permissions that stand at the start of the text and returns
// what follows.
func (c *modeChange) letters(text string) string {
	if text != "" && strings.IndexByte("ugo", text[0]) >= 0 {
		c.from, c.perm = true, modeWho[text[0]]&0o777
		return text[1:]
	}
	bits := map[byte]uint32{'r': 0o444, 'w': 0o222, 'x': 0o111, 's': modeSetID, 't': 0o1000}
	for ; text != ""; text = text[1:] {
		switch {
		case bits[text[0]] != 0:
			c.perm |= bits[text[0]]
		case text[0] == 'X':
			c.xIfX = true
		default:
			return text
		}
	}
	return text
}

// adjust applies the mode to an old one, with no umask, and also returns which
// bits it decides: the others are the file's own affair. Those are set-id bits
// of a directory, which it may have from its parent.
func (m installMode) adjust(old uint32, dir bool) (mode, decided uint32) {
	mode = old & modeAll
	for _, c := range m {
		var omit uint32
		if dir {
			omit = modeSetID &^ c.named
		}
		value := c.perm
		if c.from {
			value &= mode
			for _, bit := range []uint32{0o444, 0o222, 0o111} {
				if value&bit != 0 {
					value |= bit
				}
			}
		}
		if c.xIfX && (dir || mode&0o111 != 0) {
			value |= 0o111
		}
		who := c.who
		if who == 0 {
			who = modeAll
		}
		value &= who &^ omit
		switch c.op {
		case '=':
			left := modeAll&^who | omit
			decided |= modeAll &^ left
			mode = mode&left | value
		case '+':
			decided |= value
			mode |= value
		case '-':
			decided |= value
			mode &^= value
		}
	}
	return mode, decided
}
