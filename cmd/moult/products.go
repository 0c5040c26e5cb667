package main

import (
	"github.com/spf13/cobra"

	"moult.example/internal/deploy"
)

// targetsOrAll wants targets or --all, and not both.
func targetsOrAll(all *bool) cobra.PositionalArgs {
	some := operands("TARGET...")
	return func(cmd *cobra.Command, args []string) error {
		if !*all {
			err := some(cmd, args)
			if usage, ok := err.(*usageError); ok {
				usage.message += ", and no --all"
			}
			return err
		}
		if len(args) > 0 {
			return &usageError{message: "want targets or --all, not both"}
		}
		return nil
	}
}

// eachTarget does a job for the targets that are named, or for all of this
// host. One that fails keeps none of the others from it.
func (a *app) eachTarget(paths []string, all bool, w wait, job func(*deploy.Target) error) []error {
	var errs []error
	if all {
		targets, err := deploy.Targets("")
		if err != nil {
			errs = append(errs, err)
		}
		a.remarkNone(len(targets), err)
		for _, t := range targets {
			paths = append(paths, string(t.Path))
		}
	}
	for _, path := range paths {
		if err := a.withTarget(path, w, job); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// remarkNone says why a command about all targets prints nothing.
func (a *app) remarkNone(n int, err error) {
	if n == 0 && err == nil {
		a.remark("no targets are registered on this host (%s)", deploy.Path(deploy.StateDir()).Quoted())
	}
}

// products are the names of what a target holds; a name picks one.
func products(t *deploy.Target, name string) ([]string, error) {
	if name != "" {
		return []string{name}, nil
	}
	all, err := t.Status("")
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names, err
}

// cutShort is how a command that only reads ends on a target where an earlier
// command was cut short.
func cutShort(t *deploy.Target, name string) error {
	all, err := t.Status(name)
	for _, s := range all {
		if s.CutShort {
			return deploy.ErrCutShort
		}
	}
	return err
}
