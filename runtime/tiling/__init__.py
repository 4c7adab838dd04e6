"""Pictures of any size through a session, tile by tile."""
