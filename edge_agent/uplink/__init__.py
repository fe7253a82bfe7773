"""The way to the server and back: frames and commands out, directives in, over one transport."""
