"""The drop-in DataLoader. Import names from `keepfed`; this folder is private and loads nothing by itself."""
