"""The command line. Each command is one module with `main(arguments) -> exit code`, imported when it is called."""
