"""From a repository to an image: what is done inside a container, and how one is made around it."""
