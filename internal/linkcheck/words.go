package linkcheck

import (
	"fmt"
	"strings"
)

// Why is the finding in words, without the name of Object and without where it
// was looked for. Names in it come from files: escape it for a terminal.
func (f *Finding) Why() string {
	text := f.what()
	if f.Detail != "" && text != f.Detail {
		text += ": " + f.Detail
	}
	return text
}

func (f *Finding) what() string {
	symbol := f.Symbol
	if f.Name != "" {
		symbol = f.Name
	}
	if f.Version != "" {
		symbol += ", version " + f.Version + ","
	}
	in := f.Needs
	if in == "" {
		in = f.Found
	}
	switch f.Problem {
	case MissingInterpreter:
		return fmt.Sprintf("its interpreter %s is not there", f.Needs)
	case MissingLibrary:
		return fmt.Sprintf("needs %s, which is not found", f.Needs)
	case MissingVersion:
		if f.Version == "" {
			return "needs a version of " + f.Needs
		}
		return fmt.Sprintf("needs version %s of %s, which does not have it", f.Version, f.Needs)
	case NewerLibc:
		return fmt.Sprintf("needs %s of %s: it was built for a newer C library", f.Version, f.Needs)
	case NoVersions:
		return fmt.Sprintf("needs version %s of %s, which has no versions", f.Version, f.Needs)
	case MissingSymbol:
		if in != "" {
			return fmt.Sprintf("needs %s of %s, which is not defined there", strings.TrimSuffix(symbol, ","), in)
		}
		return fmt.Sprintf("needs %s, which nothing defines", strings.TrimSuffix(symbol, ","))
	case CopySize:
		return fmt.Sprintf("the size of %s in %s has changed", symbol, in)
	case KindChanged:
		return fmt.Sprintf("%s in %s is of another kind", symbol, in)
	case ProtectedCopy:
		return fmt.Sprintf("%s in %s is protected", symbol, in)
	case Interposed:
		return fmt.Sprintf("%s now comes from %s", symbol, f.Found)
	case ProcessorLevel:
		return "needs instructions of " + f.Needs + ", which this processor lacks"
	case RelativeNeedsLibc:
		return "its packed relocations are not understood"
	case SonameDiffers:
		return "needs " + f.Needs + ", and gets a library of another name"
	case TwoMajors:
		return "gets two majors of one library, " + f.Needs + " and another"
	case TextRelocations:
		return "its code is written to when it is loaded"
	case ExecutableStack:
		return "wants an executable stack"
	case StaticTLS:
		return "may find no room for its thread-local storage"
	}
	if f.Detail != "" {
		return f.Detail
	}
	return string(f.Problem)
}
