"""`syncd demo`: the whole job on a throw-away folder, with a proof at the end."""
