package linkcheck

func gnuHashOf(name []byte) uint32 {
	h := uint32(5381)
	for _, c := range name {
		h = h*33 + uint32(c)
	}
	return h
}

func sysvHashOf(name []byte) uint32 {
	h := uint32(0)
	for _, c := range name {
		h = h<<4 + uint32(c)
		h ^= h >> 24 & 0xf0
	}
	return h & 0x0fffffff
}

// gnuHash is DT_GNU_HASH.
type gnuHash struct {
	bloom, buckets, chain []byte
	bloomMask, shift      uint32
	first, count          uint32
}

func (g *gnuHash) read(im *image, b []byte) error {
	if len(b) < 16 {
		return &FormatError{"hash table is not loaded"}
	}
	count, first, words, shift := im.u32(b), im.u32(b[4:]), im.u32(b[8:]), im.u32(b[12:])
	b = b[16:]
	bloom, buckets := uint64(words)*uint64(im.wordSize()), uint64(count)*4
	if words == 0 || words&(words-1) != 0 || bloom+buckets > uint64(len(b)) {
		return &FormatError{"hash table is not loaded"}
	}
	if count == 0 {
		return nil // nothing is exported
	}
	*g = gnuHash{b[:bloom], b[bloom:][:buckets], b[bloom+buckets:], words - 1, shift, first, count}
	return nil
}

// each calls try for every symbol of a hash until it returns true.
func (g *gnuHash) each(im *image, hash uint32, try func(uint32) bool) {
	if im.wide {
		word := im.u64(g.bloom[(hash/64&g.bloomMask)*8:])
		if word>>(hash&63)&(word>>(hash>>(g.shift&31)&63))&1 == 0 {
			return
		}
	} else {
		word := im.u32(g.bloom[(hash/32&g.bloomMask)*4:])
		if word>>(hash&31)&(word>>(hash>>(g.shift&31)&31))&1 == 0 {
			return
		}
	}
	i := im.u32(g.buckets[hash%g.count*4:])
	if i == 0 || i < g.first {
		return
	}
	for ; im.step() && uint64(i-g.first)*4+4 <= uint64(len(g.chain)); i++ {
		h := im.u32(g.chain[uint64(i-g.first)*4:])
		if (h^hash)>>1 == 0 && try(i) || h&1 != 0 {
			return
		}
	}
}

// sysvHash is DT_HASH.
type sysvHash struct {
	buckets, chain []byte
	count          uint32
}

func (h *sysvHash) read(im *image, b []byte) error {
	if len(b) < 8 {
		return &FormatError{"hash table is not loaded"}
	}
	buckets, chain := uint64(im.u32(b))*4, uint64(im.u32(b[4:]))*4
	b = b[8:]
	if buckets+chain > uint64(len(b)) {
		return &FormatError{"hash table is not loaded"}
	}
	if buckets > 0 {
		*h = sysvHash{b[:buckets], b[buckets:][:chain], uint32(buckets / 4)}
	}
	return nil
}

func (h *sysvHash) each(im *image, hash uint32, try func(uint32) bool) {
	for i := im.u32(h.buckets[hash%h.count*4:]); i != 0 && im.step(); i = im.u32(h.chain[uint64(i)*4:]) {
		if uint64(i)*4+4 > uint64(len(h.chain)) || try(i) {
			return
		}
	}
}

// step counts a step along a chain of a hash table and says whether to go on.
// Chains of real files have a few links; a hostile one can have a million, or a
// circle of them.
func (im *image) step() bool {
	im.work.steps++
	return im.work.steps < 1<<22+256*im.work.lookups
}

// spent says that the file has had more than its share of work, so that what is
// said of it is not complete.
func (im *image) spent() bool {
	return im.work.steps >= 1<<22+256*im.work.lookups || im.work.names > maxNames+32*uint64(len(im.data))
}
