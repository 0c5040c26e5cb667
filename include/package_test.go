package include_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"moult.example/internal/testneed"
)

// C++ projects find the header with pkg-config and with CMake, wherever it was
// installed to.
func TestPackages(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"make", "cmake", "pkg-config"} {
		testneed.Tool(t, tool)
	}
	dir := t.TempDir()
	prefix := filepath.Join(dir, "usr")
	run := func(at string, args ...string) string {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = at
		cmd.Env = append(os.Environ(), "PKG_CONFIG_PATH="+filepath.Join(prefix, "share/pkgconfig"), "MAKEFLAGS=")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	header := filepath.Join(dir, "header")
	run(root, "make", "-s", "header", "PREFIX="+prefix, "HEADER="+header)
	for from, to := range map[string]string{
		filepath.Join(root, "include/moult.h"):             "include",
		filepath.Join(header, "moult.pc"):                  "share/pkgconfig",
		filepath.Join(root, "packaging/moultConfig.cmake"): "lib/cmake/moult",
		filepath.Join(header, "moultConfigVersion.cmake"):  "lib/cmake/moult",
	} {
		os.MkdirAll(filepath.Join(prefix, to), 0o755)
		place(t, from, filepath.Join(prefix, to, filepath.Base(from)))
	}
	if got, want := run(dir, "pkg-config", "--cflags", "moult"), "-I"+prefix+"/include \n"; got != want {
		t.Errorf("pkg-config: got %q, want %q", got, want)
	}
	project := filepath.Join(dir, "project")
	os.Mkdir(project, 0o755)
	os.WriteFile(filepath.Join(project, "CMakeLists.txt"), []byte(`cmake_minimum_required(VERSION 3.13)
project(use CXX)
find_package(moult 1.0 REQUIRED)
add_executable(use use.cc)
target_link_libraries(use PRIVATE moult::moult)
`), 0o644)
	os.WriteFile(filepath.Join(project, "use.cc"), []byte(`#define MOULT_IMPLEMENTATION
#include <moult.h>
int main(int argc, char **argv) { return moult_init(argc, argv, nullptr) || moult_ready() || moult_changed(); }
`), 0o644)
	run(project, "cmake", "-DCMAKE_PREFIX_PATH="+prefix, "-B", "build")
	run(project, "cmake", "--build", "build")
	run(project, filepath.Join(project, "build", "use"))
}
