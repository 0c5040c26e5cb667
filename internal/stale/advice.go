package stale

import "fmt"

// advise says what may be done to the file, for the sake of those who use it.
// Who could not be looked at may use it in any way.
func (r *FileReport) advise() {
	n := map[Way]int{}
	locks := 0
	for _, u := range r.Users {
		seen := map[Way]bool{}
		for _, x := range u.Uses {
			if !seen[x.Way] {
				seen[x.Way] = true
				n[x.Way]++
			}
			if x.Lock != "" {
				locks++
			}
		}
	}
	runs := n[WayExe] + n[WayLibrary]
	maps := n[WayShared] + n[WayMap]
	stands := n[WayCwd] + n[WayRoot]
	unknown := ""
	if r.Hidden {
		unknown = "there are processes that are hidden from us, and that may use it"
	} else if len(r.Unreadable) > 0 {
		unknown = fmt.Sprintf("%s could not be looked at", processes(len(r.Unreadable)))
	}

	switch {
	case runs > 0:
		r.Overwrite.Why = processes(runs) + " would crash or run a mixture of old and new code"
	case maps > 0:
		r.Overwrite.Why = processes(maps) + " would see the change at once, and crash if the file gets shorter"
	case n[WayWrite] > 0:
		r.Overwrite.Why = processes(n[WayWrite]) + " would write into the new contents"
	case n[WayRead] > 0:
		r.Overwrite.Why = processes(n[WayRead]) + " may read a mixture of old and new"
	case stands > 0:
		r.Overwrite = Advice{false, "it is a directory"}
	case unknown != "":
		r.Overwrite.Why = unknown
	default:
		r.Overwrite = Advice{true, "nobody uses it"}
	}

	switch {
	case n[WayWrite] > 0:
		r.Rename.Why = processes(n[WayWrite]) + " would go on writing to the old file, which then has no name"
	case locks > 0:
		r.Rename.Why = "there are locks on it, and whoever locks the new file does not meet them"
	case n[WayShared] > 0:
		r.Rename.Why = processes(n[WayShared]) + " would go on sharing the old file"
	case stands > 0:
		r.Rename.Why = processes(stands) + " would stay in the old directory"
	case runs > 0:
		r.Rename = Advice{true, processes(runs) + " would go on with the old file until restarted"}
	case maps+n[WayRead] > 0:
		r.Rename = Advice{true, processes(maps+n[WayRead]) + " would go on with the old file"}
	case unknown != "":
		r.Rename = Advice{true, "nobody is known to use it, and who runs it goes on with the old file; " + unknown}
	default:
		r.Rename = Advice{true, "nobody uses it"}
	}

	switch {
	case runs > 0:
		r.Delete.Why = processes(runs) + " would go on, but not start again"
	case n[WayWrite] > 0:
		r.Delete.Why = "what " + processes(n[WayWrite]) + " would write from then on is lost"
	case locks > 0:
		r.Delete.Why = "there are locks on it, and whoever locks a new file does not meet them"
	case stands > 0:
		r.Delete.Why = processes(stands) + " would be in a directory that has no name"
	case unknown != "":
		r.Delete.Why = unknown
	case maps+n[WayRead] > 0:
		r.Delete = Advice{true, processes(maps+n[WayRead]) + " would keep its space until the end"}
	default:
		r.Delete = Advice{true, "nobody uses it"}
	}
}

func processes(n int) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}
