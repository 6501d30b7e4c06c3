"""The values of group_data, typed and checked before the first change."""
