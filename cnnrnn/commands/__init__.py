"""One module per command word, each with run(arguments, config)."""
