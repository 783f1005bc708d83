"""Models outside the cache: workspaces of links, folders of plain files, model stores."""
